package session

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"gochat/layers/internal/contract"
)

// create makes a session and fails the test if it cannot.
func create(t testing.TB, s *Store, user contract.UserID, now time.Time) (string, Session, []contract.SessionID) {
	t.Helper()
	token, sess, ended, err := s.Create(t.Context(), user, "ann", "phone", now)
	if err != nil {
		t.Fatal(err)
	}
	return token, sess, ended
}

func wantEnded(t testing.TB, s *Store, id contract.SessionID) {
	t.Helper()
	if _, err := s.Get(t.Context(), id); contract.CodeOf(err) != contract.Unauthenticated {
		t.Errorf("Get of an ended session: got %v, want unauthenticated", err)
	}
}

func wantUsable(t testing.TB, s *Store, id contract.SessionID) {
	t.Helper()
	if _, err := s.Get(t.Context(), id); err != nil {
		t.Errorf("Get of a session that was not ended: %v", err)
	}
}

func testLifecycle(t *testing.T, b *backend) {
	s, now := b.open(t), time.Now().Truncate(time.Millisecond).UTC()
	token, sess, ended := create(t, s, 7, now)
	want := Session{ID: HashToken(token), User: 7, Name: "ann", Device: "phone", CreatedAt: now, ExpiresAt: now.Add(s.ttl)}
	if sess != want || len(ended) != 0 {
		t.Fatalf("created %+v, ended %v; want %+v and none", sess, ended, want)
	}
	got, err := s.Get(t.Context(), HashToken(token))
	if err != nil {
		t.Fatal(err)
	}
	if d := got.ExpiresAt.Sub(want.ExpiresAt); d < -time.Minute || d > time.Minute {
		t.Errorf("expires at %v, want about %v", got.ExpiresAt, want.ExpiresAt)
	}
	if got.ExpiresAt = want.ExpiresAt; got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}

	_, later, _ := create(t, s, 7, now.Add(time.Second))
	create(t, s, 8, now)
	list, err := s.List(t.Context(), 7)
	if err != nil || len(list) != 2 || list[0].ID != later.ID || list[1].ID != sess.ID {
		t.Fatalf("list %+v, %v; want the two of user 7, the newest first", list, err)
	}

	for range 2 { // the second time nothing is left to do
		if err := s.End(t.Context(), sess.ID); err != nil {
			t.Fatal(err)
		}
	}
	wantEnded(t, s, sess.ID)
	wantUsable(t, s, later.ID)
	if keys := b.keys(t, string(sess.ID)); len(keys) != 0 {
		t.Errorf("an ended session leaves %v", keys)
	}
	if list, err := s.List(t.Context(), 7); err != nil || len(list) != 1 {
		t.Errorf("list %+v, %v; want one", list, err)
	}
}

func testTokenNotStored(t *testing.T, b *backend) {
	s := b.open(t)
	token, sess, _ := create(t, s, 7, time.Now())
	if len(token) != 43 { // 256 bits in base64 without padding
		t.Errorf("token of %d characters, want 43", len(token))
	}
	all := b.dump(t)
	if !strings.Contains(all, string(sess.ID)) {
		t.Fatalf("the dump lacks the session, so that it proves nothing:\n%s", all)
	}
	if strings.Contains(all, token) {
		t.Errorf("the token is in Redis:\n%s", all)
	}
}

// testBothHalves is the states that a crash half way through a change leaves.
func testBothHalves(t *testing.T, b *backend) {
	s := b.open(t)
	_, unlisted, _ := create(t, s, 7, time.Now())
	_, bare, _ := create(t, s, 7, time.Now())
	b.raw.ZRem(t.Context(), indexKey(7), string(unlisted.ID))
	b.raw.PExpire(t.Context(), recordKey(unlisted.ID), s.ttl/2) // so that use would extend it
	wantEnded(t, s, unlisted.ID)
	b.raw.Del(t.Context(), recordKey(bare.ID))
	for _, id := range []contract.SessionID{unlisted.ID, bare.ID} {
		wantEnded(t, s, id)
		if err := s.End(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	if list, err := s.List(t.Context(), 7); err != nil || len(list) != 0 {
		t.Errorf("list %+v, %v; want none", list, err)
	}
	if keys := b.keys(t, ""); len(keys) != 0 {
		t.Errorf("left: %v", keys)
	}
}

func testMaxSessions(t *testing.T, b *backend) {
	s, now := b.open(t), time.Now()
	var all []contract.SessionID
	for i := range MaxSessions + 2 {
		_, sess, ended := create(t, s, 7, now.Add(time.Duration(i)*time.Second))
		var want []contract.SessionID
		if i >= MaxSessions {
			want = all[i-MaxSessions : i-MaxSessions+1]
		}
		if !slices.Equal(ended, want) {
			t.Fatalf("session %d ended %v, want %v", i, ended, want)
		}
		all = append(all, sess.ID)
	}
	wantEnded(t, s, all[1])
	wantUsable(t, s, all[2])
	if list, err := s.List(t.Context(), 7); err != nil || len(list) != MaxSessions {
		t.Errorf("list of %d, %v; want %d", len(list), err, MaxSessions)
	}
	if records := b.keys(t, "gochat:session:"); len(records) != MaxSessions {
		t.Errorf("%d records, want %d", len(records), MaxSessions)
	}
}

func testSingle(t *testing.T, b *backend) {
	s := b.open(t)
	_, first, _ := create(t, s, 7, time.Now())
	_, second, _ := create(t, s, 7, time.Now())
	_, other, _ := create(t, s, 8, time.Now())
	_, last, ended, err := s.CreateSingle(t.Context(), 7, "ann", "desk", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	want := []contract.SessionID{first.ID, second.ID}
	slices.Sort(ended)
	slices.Sort(want)
	if !slices.Equal(ended, want) {
		t.Errorf("ended %v, want %v", ended, want)
	}
	wantEnded(t, s, first.ID)
	wantEnded(t, s, second.ID)
	wantUsable(t, s, last.ID)
	wantUsable(t, s, other.ID)
}

func testConcurrentSingle(t *testing.T, b *backend) {
	s := b.open(t)
	const logins = 20
	var mu sync.Mutex
	var made, ended []contract.SessionID
	var wg sync.WaitGroup
	for range logins {
		wg.Go(func() {
			_, sess, out, err := s.CreateSingle(t.Context(), 7, "ann", "phone", time.Now())
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			made = append(made, sess.ID)
			ended = append(ended, out...)
		})
	}
	wg.Wait()
	usable := 0
	for _, id := range made {
		if _, err := s.Get(t.Context(), id); err == nil {
			usable++
			if slices.Contains(ended, id) {
				t.Error("a session that was answered as ended is usable")
			}
		}
	}
	slices.Sort(ended)
	if distinct := len(slices.Compact(ended)); usable != 1 || len(ended) != logins-1 || distinct != logins-1 {
		t.Errorf("%d usable, %d ended, %d of them distinct; want 1, %d, %d", usable, len(ended), distinct, logins-1, logins-1)
	}
}

func testSliding(t *testing.T, b *backend) {
	s := b.open(t)
	_, sess, _ := create(t, s, 7, time.Now())
	left := func(key string) time.Duration { return b.raw.PTTL(t.Context(), key).Val() }
	age := func(rest time.Duration) {
		b.raw.PExpire(t.Context(), recordKey(sess.ID), rest)
		b.raw.PExpire(t.Context(), indexKey(7), rest)
	}

	age(s.ttl - s.ttl/40)
	wantUsable(t, s, sess.ID)
	if got := left(recordKey(sess.ID)); got > s.ttl-s.ttl/40 {
		t.Errorf("%v are left after a use soon after the last: it was written", got)
	}
	before := b.raw.ZScore(t.Context(), indexKey(7), string(sess.ID)).Val()
	age(s.ttl / 2)
	eventually(t, "the clock moves", func() bool { return float64(time.Now().UnixMilli()) > before })
	got, err := s.Get(t.Context(), sess.ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{recordKey(sess.ID), indexKey(7)} {
		if left(key) < s.ttl-s.ttl/20 {
			t.Errorf("%v of %s are left after a use at half its life", left(key), key)
		}
	}
	if time.Until(got.ExpiresAt) < s.ttl-s.ttl/20 {
		t.Errorf("expires at %v, want the extended time", got.ExpiresAt)
	}
	if after := b.raw.ZScore(t.Context(), indexKey(7), string(sess.ID)).Val(); after <= before {
		t.Errorf("the last use is %v, want after %v", after, before)
	}
}

func testTouch(t *testing.T, b *backend) {
	s := b.open(t)
	var ids, want []contract.SessionID
	for i := range 2*maxBatch + 10 {
		if i%1000 == 5 {
			_, sess, _ := create(t, s, contract.UserID(i), time.Now())
			b.raw.PExpire(t.Context(), recordKey(sess.ID), s.ttl/2)
			ids = append(ids, sess.ID)
			continue
		}
		id := HashToken(fmt.Sprint("none ", i))
		ids, want = append(ids, id), append(want, id)
	}
	ended, err := s.Touch(t.Context(), ids)
	if err != nil || !slices.Equal(ended, want) {
		t.Fatalf("%d ended, %v; want %d", len(ended), err, len(want))
	}
	for _, key := range b.keys(t, "gochat:session:") {
		if left := b.raw.PTTL(t.Context(), key).Val(); left <= s.ttl/2 {
			t.Errorf("a session touched has %v left", left)
		}
	}
	if ended, err := s.Touch(t.Context(), nil); err != nil || len(ended) != 0 {
		t.Errorf("touching none: %v, %v", ended, err)
	}
}

func testListCleans(t *testing.T, b *backend) {
	s := b.open(t)
	_, expired, _ := create(t, s, 7, time.Now())
	_, sess, _ := create(t, s, 7, time.Now())
	b.raw.Del(t.Context(), recordKey(expired.ID))
	list, err := s.List(t.Context(), 7)
	if err != nil || len(list) != 1 || list[0].ID != sess.ID {
		t.Errorf("list %+v, %v; want the one that lives", list, err)
	}
	if n := b.raw.ZCard(t.Context(), indexKey(7)).Val(); n != 1 {
		t.Errorf("the set has %d, want 1", n)
	}
}

func testMalformed(t *testing.T, b *backend) {
	s := b.open(t)
	_, sess, _ := create(t, s, 7, time.Now())
	record := b.raw.Get(t.Context(), recordKey(sess.ID)).Val()
	for name, id := range map[string]contract.SessionID{
		"empty":      "",
		"other key":  "s:7",
		"upper case": contract.SessionID(strings.Repeat("A", 64)),
		"too long":   contract.SessionID(strings.Repeat("a", 65)),
		"line break": contract.SessionID(strings.Repeat("a", 63) + "\n"),
	} {
		t.Run(name, func(t *testing.T) {
			b.raw.Set(t.Context(), recordKey(id), record, s.ttl)
			b.raw.ZAdd(t.Context(), indexKey(7), redis.Z{Member: string(id)})
			wantEnded(t, s, id)
			if err := s.End(t.Context(), id); err != nil {
				t.Error(err)
			}
			if b.raw.Exists(t.Context(), recordKey(id)).Val() == 0 {
				t.Error("what is no session's name has become a key")
			}
		})
	}
}

func TestHashToken(t *testing.T) {
	for token, want := range map[string]contract.SessionID{
		"":    "",
		"abc": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", // FIPS 180-2, B.1
	} {
		if got := HashToken(token); got != want {
			t.Errorf("HashToken(%q) = %q, want %q", token, got, want)
		}
	}
}

func TestSessionExpires(t *testing.T) {
	t.Run("redis", func(t *testing.T) {
		b := newRedis(t)
		b.cfg.TTL = 50 * time.Millisecond
		s := b.open(t)
		_, sess, _ := create(t, s, 7, time.Now())
		// Not by Get: whoever asks keeps it alive.
		eventually(t, "every key expires", func() bool { return len(b.keys(t, "")) == 0 })
		wantEnded(t, s, sess.ID)
	})
	t.Run("miniredis", func(t *testing.T) {
		srv := miniredis.RunT(t)
		b := newBackend(t, Config{Addrs: []string{srv.Addr()}, TTL: time.Hour})
		s := b.open(t)
		_, used, _ := create(t, s, 7, time.Now())
		_, unused, _ := create(t, s, 7, time.Now())
		for range 3 {
			srv.FastForward(40 * time.Minute)
			wantUsable(t, s, used.ID)
		}
		wantEnded(t, s, unused.ID)
		if list, err := s.List(t.Context(), 7); err != nil || len(list) != 1 || list[0].ID != used.ID {
			t.Errorf("list %+v, %v; want the one in use", list, err)
		}
		srv.FastForward(time.Hour)
		wantEnded(t, s, used.ID)
		if keys := b.keys(t, ""); len(keys) != 0 {
			t.Errorf("left: %v", keys)
		}
	})
}

func TestRedisAway(t *testing.T) {
	srv := startRedis(t, freePort(t))
	b := newBackend(t, Config{Addrs: []string{srv.addr}})
	srv.kill()
	s := b.open(t) // does not need Redis
	node := ref("connect-1", 1)
	calls := map[string]func() error{
		"ping":   func() error { return s.Ping(t.Context()) },
		"create": func() error { _, _, _, err := s.Create(t.Context(), 7, "ann", "", time.Now()); return err },
		"single": func() error { _, _, _, err := s.CreateSingle(t.Context(), 7, "ann", "", time.Now()); return err },
		"get":    func() error { _, err := s.Get(t.Context(), HashToken("x")); return err },
		"touch":  func() error { _, err := s.Touch(t.Context(), []contract.SessionID{HashToken("x")}); return err },
		"end":    func() error { return s.End(t.Context(), HashToken("x")) },
		"list":   func() error { _, err := s.List(t.Context(), 7); return err },
		"apply":  func() error { return s.Apply(t.Context(), node, nil) },
		"replace": func() error {
			return s.Replace(t.Context(), node, nil)
		},
		"resolve": func() error { _, err := s.Resolve(t.Context(), []contract.RoomID{1}, nil); return err },
		"online": func() error {
			_, _, err := s.Online(t.Context(), 1, func(contract.NodeRef) bool { return true }, 1)
			return err
		},
		"forget": func() error { _, err := s.Forget(t.Context(), node); return err },
		"lives":  func() error { _, err := s.Lives(t.Context()); return err },
	}
	for name, call := range calls {
		err := call()
		var known *contract.Error
		if !errors.As(err, &known) || known.Code != contract.Unavailable || known.RetryAfter != time.Second {
			t.Errorf("%s without Redis: got %v, want unavailable, again after 1 s", name, err)
			continue
		}
		if !strings.Contains(err.Error(), "refused") || strings.Contains(known.Message, "refused") {
			t.Errorf("%s: the log gets %q, the client %q; want the cause in the log alone", name, err, known.Message)
		}
	}
	srv.start(t)
	eventually(t, "the store works again", func() bool { return s.Ping(t.Context()) == nil })
	for name, call := range calls {
		if err := call(); err != nil && contract.CodeOf(err) != contract.Unauthenticated {
			t.Errorf("%s after Redis came back: %v", name, err)
		}
	}
}

// A Redis that accepts and never answers holds nobody up for longer than the caller or the configuration allows.
func TestRedisStalled(t *testing.T) {
	srv := startRedis(t, freePort(t))
	b := newBackend(t, Config{Addrs: []string{srv.addr}})
	for name, c := range map[string]struct{ timeout, deadline time.Duration }{
		"the caller's deadline":     {time.Hour, 50 * time.Millisecond},
		"the configuration's limit": {50 * time.Millisecond, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			b.cfg.Timeout = c.timeout
			s := b.open(t)
			if err := s.Ping(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := srv.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			defer srv.cmd.Process.Signal(syscall.SIGCONT)
			ctx, cancel := context.WithTimeout(t.Context(), c.deadline)
			defer cancel()
			answered := make(chan error, 1)
			go func() {
				_, err := s.Resolve(ctx, []contract.RoomID{1}, nil)
				answered <- err
			}()
			select {
			case err := <-answered:
				if contract.CodeOf(err) != contract.Unavailable {
					t.Errorf("got %v, want unavailable", err)
				}
			case <-time.After(20 * time.Second):
				t.Error("still waiting for Redis")
			}
		})
	}
}
