package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"gochat/layers/internal/contract"
)

// MaxSessions is how many sessions a user may have at once.
const MaxSessions = 50

// Session is one login of a user on one device.
type Session = contract.Session

// record is the part of a session that never changes.
type record struct {
	User    contract.UserID `json:"user"`
	Name    string          `json:"name"`
	Device  string          `json:"device,omitempty"`
	Created int64           `json:"created"` // Unix milliseconds
}

func (r record) session(id contract.SessionID, expires time.Time) Session {
	return Session{ID: id, User: r.User, Name: r.Name, Device: r.Device,
		CreatedAt: time.UnixMilli(r.Created).UTC(), ExpiresAt: expires.UTC()}
}

func recordKey(id contract.SessionID) string { return "gochat:session:" + string(id) }

func indexKey(user contract.UserID) string {
	return "gochat:sessions:" + strconv.FormatInt(int64(user), 10)
}

// admit puts a session into its user's set and takes out what was used longest ago, but for ARGV[4] others. Expired
// ones, which nothing has taken out yet, go first by that rule. It answers those taken out.
const admit = `
local ended = redis.call('ZRANGE', KEYS[1], 0, -1 - ARGV[4])
if #ended > 0 then redis.call('ZREM', KEYS[1], unpack(ended)) end
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return ended`

// Create makes a session and the token that opens it, which is kept nowhere. Beyond MaxSessions the user's sessions
// that were used longest ago end; they are answered, so that their connections can be closed (some may have expired
// before). After an error there is no session that anyone could use.
func (s *Store) Create(ctx context.Context, user contract.UserID, name, device string, now time.Time) (
	token string, sess Session, ended []contract.SessionID, err error) {
	defer s.done("create", time.Now(), &err)
	return s.create(ctx, user, name, device, now, MaxSessions-1)
}

// CreateSingle is Create, but ends all other sessions of the user in the same instant: of any number of concurrent
// calls exactly one session is left, and each session ended is answered by the call that ended it.
func (s *Store) CreateSingle(ctx context.Context, user contract.UserID, name, device string, now time.Time) (
	token string, sess Session, ended []contract.SessionID, err error) {
	defer s.done("create", time.Now(), &err)
	return s.create(ctx, user, name, device, now, 0)
}

func (s *Store) create(ctx context.Context, user contract.UserID, name, device string, now time.Time, others int) (
	string, Session, []contract.SessionID, error) {
	token := newToken()
	id := HashToken(token)
	rec := record{User: user, Name: name, Device: device, Created: now.UnixMilli()}
	value, err := json.Marshal(rec)
	if err != nil {
		return "", Session{}, nil, fmt.Errorf("encode session: %w", err)
	}
	if err := s.redis.Set(ctx, recordKey(id), value, s.ttl).Err(); err != nil {
		return "", Session{}, nil, err
	}
	out, err := s.admit.Run(ctx, s.redis, []string{indexKey(user)},
		string(id), now.UnixMilli(), s.ttl.Milliseconds(), others).StringSlice()
	if err != nil {
		return "", Session{}, nil, err
	}
	ended := make([]contract.SessionID, len(out))
	for i, e := range out {
		ended[i] = contract.SessionID(e)
	}
	// They have ended already. What is left of them takes room until it expires, which is no reason to refuse.
	if err := s.deleteRecords(ctx, ended); err != nil {
		s.log.WarnContext(ctx, "records of ended sessions are left to expire", "user", user, "err", err)
	}
	return token, rec.session(id, now.Add(s.ttl)), ended, nil
}

func (s *Store) deleteRecords(ctx context.Context, ids []contract.SessionID) error {
	return s.pipeline(ctx, func(p redis.Pipeliner) {
		for _, id := range ids {
			p.Del(ctx, recordKey(id))
		}
	})
}

// Get answers the session and extends its life, writing only when a twentieth of it has passed since the last time.
// Unauthenticated if there is none of that name, or no more.
func (s *Store) Get(ctx context.Context, id contract.SessionID) (sess Session, err error) {
	defer s.done("get", time.Now(), &err)
	used, err := s.use(ctx, []contract.SessionID{id})
	if err != nil {
		return Session{}, err
	}
	if used[0].ID == "" {
		return Session{}, contract.Errorf(contract.Unauthenticated, "the session has ended")
	}
	return used[0], nil
}

// Touch extends the sessions as Get does and answers those that have ended. After an error part of them may have
// been extended, and nothing is known of which have ended.
func (s *Store) Touch(ctx context.Context, ids []contract.SessionID) (ended []contract.SessionID, err error) {
	defer s.done("touch", time.Now(), &err)
	for batch := range slices.Chunk(ids, maxBatch) {
		used, err := s.use(ctx, batch)
		if err != nil {
			return nil, err
		}
		for i, sess := range used {
			if sess.ID == "" {
				ended = append(ended, batch[i])
			}
		}
	}
	return ended, nil
}

// use reads and extends sessions in two round trips. The result is in the order of ids; a session that has ended
// is the zero Session.
func (s *Store) use(ctx context.Context, ids []contract.SessionID) ([]Session, error) {
	used, err := s.read(ctx, ids)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	listed := make([]*redis.FloatCmd, len(ids))
	err = s.pipeline(ctx, func(p redis.Pipeliner) {
		for i, sess := range used {
			if sess.ID == "" {
				continue
			}
			index := indexKey(sess.User)
			listed[i] = p.ZScore(ctx, index, string(sess.ID))
			if sess.ExpiresAt.Sub(now) <= s.ttl-s.ttl/20 {
				// Of a session that has just ended this brings nothing back: its record alone is not usable, and
				// the set is changed only where it names the session.
				p.PExpire(ctx, recordKey(sess.ID), s.ttl)
				p.ZAddXX(ctx, index, redis.Z{Score: float64(now.UnixMilli()), Member: string(sess.ID)})
				p.PExpire(ctx, index, s.ttl)
				used[i].ExpiresAt = now.Add(s.ttl).UTC()
			}
		}
	})
	if err != nil {
		return nil, err
	}
	for i, cmd := range listed {
		if cmd != nil && errors.Is(cmd.Err(), redis.Nil) {
			used[i] = Session{}
		}
	}
	return used, nil
}

// read answers the records, whether or not their user's set names them, in the order of ids; the zero Session for
// one that is not there.
func (s *Store) read(ctx context.Context, ids []contract.SessionID) ([]Session, error) {
	values := make([]*redis.StringCmd, len(ids))
	left := make([]*redis.DurationCmd, len(ids))
	err := s.pipeline(ctx, func(p redis.Pipeliner) {
		for i, id := range ids {
			if wellFormed(id) {
				values[i] = p.Get(ctx, recordKey(id))
				left[i] = p.PTTL(ctx, recordKey(id))
			}
		}
	})
	if err != nil {
		return nil, err
	}
	now := time.Now()
	sessions := make([]Session, len(ids))
	for i, id := range ids {
		if values[i] == nil || values[i].Err() != nil || left[i].Val() <= 0 {
			continue
		}
		var rec record
		if err := json.Unmarshal([]byte(values[i].Val()), &rec); err != nil {
			s.log.ErrorContext(ctx, "a session's record cannot be read and counts as ended", "session", id, "err", err)
			continue
		}
		sessions[i] = rec.session(id, now.Add(left[i].Val()))
	}
	return sessions, nil
}

// End ends the sessions. Ending one that has ended, or never was, does nothing. After an error it may be repeated.
func (s *Store) End(ctx context.Context, ids ...contract.SessionID) (err error) {
	defer s.done("end", time.Now(), &err)
	for batch := range slices.Chunk(ids, maxBatch) {
		found, err := s.read(ctx, batch)
		if err != nil {
			return err
		}
		found = slices.DeleteFunc(found, func(sess Session) bool { return sess.ID == "" })
		err = s.pipeline(ctx, func(p redis.Pipeliner) {
			for _, sess := range found {
				p.ZRem(ctx, indexKey(sess.User), string(sess.ID))
			}
		})
		if err != nil {
			return err
		}
		gone := make([]contract.SessionID, len(found))
		for i, sess := range found {
			gone[i] = sess.ID
		}
		if err := s.deleteRecords(ctx, gone); err != nil {
			return err
		}
	}
	return nil
}

// List answers the user's sessions, the newest first, and extends none. Expired ones are cleaned up on the way.
func (s *Store) List(ctx context.Context, user contract.UserID) (sessions []Session, err error) {
	defer s.done("list", time.Now(), &err)
	names, err := s.redis.ZRange(ctx, indexKey(user), 0, -1).Result()
	if err != nil {
		return nil, err
	}
	ids := make([]contract.SessionID, len(names))
	for i, name := range names {
		ids[i] = contract.SessionID(name)
	}
	sessions, err = s.read(ctx, ids)
	if err != nil {
		return nil, err
	}
	err = s.pipeline(ctx, func(p redis.Pipeliner) {
		for i, sess := range sessions {
			if sess.ID == "" { // its record was there before the set named it: it has expired
				p.ZRem(ctx, indexKey(user), names[i])
			}
		}
	})
	if err != nil {
		return nil, err
	}
	sessions = slices.DeleteFunc(sessions, func(sess Session) bool { return sess.ID == "" })
	slices.SortStableFunc(sessions, func(a, b Session) int { return b.CreatedAt.Compare(a.CreatedAt) })
	return sessions, nil
}
