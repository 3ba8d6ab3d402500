package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"gorm.io/gorm"

	"gochat/layers/internal/contract"
)

// MaxBatch is how many messages one Commit takes.
const MaxBatch = 2000

// CommitResult is what became of one message of a batch.
type CommitResult = contract.CommitResult

// Commit stores a batch in one transaction: it numbers each message, in batch order within a conversation, inserts
// the messages and an outbox row for each, and deletes the outbox rows in published, which may be there or not. Results
// are in batch order. Commit leaves the batch as it is.
//
// A message whose sender and client id are those of a stored one, or of one earlier in the batch, is not stored
// and takes no seq: its result is the first one.
//
// BadRequest if a conversation's name is malformed or the batch is above MaxBatch. An error means that nothing was
// stored, unless it is contract.ErrUncertain: then all of it may be, or may yet come to be. Before it says so, Commit
// tries to find out, for settleLimit at most.
func (s *Store) Commit(ctx context.Context, batch []contract.Message, published []contract.OutboxPosition) (_ []CommitResult, err error) {
	ctx, end := s.begin(ctx, "commit messages")
	defer end(&err)
	if len(batch) > MaxBatch {
		return nil, contract.Errorf(contract.BadRequest, "batch of %d messages: want at most %d", len(batch), MaxBatch)
	}
	results := make([]CommitResult, len(batch))
	first := make(map[sent]*CommitResult)
	var distinct []*CommitResult // but for those that repeat an earlier one of the batch
	for i := range batch {
		m := &results[i].Message
		*m = batch[i]
		if _, err := m.Conversation.Parse(); err != nil {
			return nil, err
		}
		m.Text, m.ClientID, m.Traceparent = clean(m.Text), clean(m.ClientID), clean(m.Traceparent)
		m.CreatedAt = time.UnixMilli(m.CreatedAt.UnixMilli()).UTC()
		if m.ClientID != "" {
			if first[sent{m.From, m.ClientID}] != nil {
				continue // filled below, when the first one has its seq
			}
			first[sent{m.From, m.ClientID}] = &results[i]
		}
		distinct = append(distinct, &results[i])
	}
	commit := s.commitByStatements
	if s.dialect == postgres {
		commit = s.commitSurely
	}
	if len(distinct) == 0 {
		err = s.DeleteOutbox(ctx, published)
	} else {
		err = commit(ctx, distinct, published)
	}
	if err != nil {
		return nil, err
	}
	for i := range results {
		m := &results[i].Message
		if one := first[sent{m.From, m.ClientID}]; one != nil && one != &results[i] {
			results[i] = CommitResult{Message: one.Message, Duplicate: true}
		}
	}
	return results, nil
}

// clean is the text as both databases can hold it.
func clean(text string) string {
	if storable(text) {
		return text
	}
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
}

// sent is the name that a sender gave to a message.
type sent struct {
	sender   contract.UserID
	clientID string
}

// commitByStatements is Commit of distinct messages, for a database that each statement costs little to reach.
func (s *Store) commitByStatements(ctx context.Context, distinct []*CommitResult, published []contract.OutboxPosition) error {
	return s.transact(ctx, func(tx *gorm.DB) error {
		c := committer{tx: tx, dialect: s.dialect}
		// Before the conversations are locked: all that does not need their locks.
		if err := deleteOutbox(c.tx, c.dialect, published); err != nil {
			return err
		}
		stored, err := c.duplicates(distinct)
		if err != nil {
			return err
		}
		var fresh []*CommitResult
		for _, r := range distinct {
			if earlier, ok := stored[sent{r.Message.From, r.Message.ClientID}]; ok && r.Message.ClientID != "" {
				*r = CommitResult{Message: earlier, Duplicate: true}
				continue
			}
			fresh = append(fresh, r)
		}
		if len(fresh) == 0 {
			return nil
		}
		if err := c.number(fresh); err != nil {
			return err
		}
		for some := range slices.Chunk(fresh, c.dialect.maxRows()) {
			if err := c.insert(some); err != nil {
				return err
			}
		}
		return nil
	})
}

// committer is one attempt at a commit.
type committer struct {
	tx      *gorm.DB
	dialect dialect
}

// duplicates answers the stored messages of the senders and client ids in the batch.
func (c committer) duplicates(batch []*CommitResult) (map[sent]contract.Message, error) {
	var names []sent
	for _, r := range batch {
		if r.Message.ClientID != "" {
			names = append(names, sent{r.Message.From, r.Message.ClientID})
		}
	}
	stored := make(map[sent]contract.Message)
	for some := range slices.Chunk(names, c.dialect.maxRows()) {
		with, args := c.dialect.with(
			col("sender_id", "bigint", some, func(n sent) int64 { return int64(n.sender) }),
			col("client_id", "text", some, func(n sent) string { return n.clientID }),
		)
		var rows []messageRow
		// CROSS JOIN makes SQLite go from v to the index; '' is excluded so that the partial index applies. PostgreSQL
		// would plan this anew for its tables, and does it otherwise: see commitAtOnceSQL.
		err := c.tx.Raw(with+`SELECT `+messageColumns+` FROM v CROSS JOIN messages m`+messageNames+`
			WHERE m.sender_id = v.sender_id AND m.client_id = v.client_id AND m.client_id <> ''`, args...).Scan(&rows).Error
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			m := r.message()
			stored[sent{m.From, m.ClientID}] = m
		}
	}
	return stored, nil
}

// number gives each message its seq and makes the conversations that are new.
func (c committer) number(fresh []*CommitResult) error {
	counts := make(map[contract.Conversation]int64)
	for _, r := range fresh {
		counts[r.Message.Conversation]++
	}
	conversations := make([]contract.Conversation, 0, len(counts))
	for id := range counts {
		conversations = append(conversations, id)
	}
	type head struct {
		ID      contract.Conversation
		LastSeq int64
	}
	var heads []head
	for some := range slices.Chunk(conversations, c.dialect.maxRows()) {
		with, args := c.dialect.with(
			col("id", "text", some, func(id contract.Conversation) string { return string(id) }),
			col("messages", "bigint", some, func(id contract.Conversation) int64 { return counts[id] }),
		)
		var rows []head
		// In order of id, so that all committers lock conversations in the same order. WHERE true keeps SQLite from
		// reading ON CONFLICT as the ON of a join.
		err := c.tx.Raw(with+`INSERT INTO conversations (id, last_seq) SELECT id, messages FROM v WHERE true ORDER BY id
			ON CONFLICT (id) DO UPDATE SET last_seq = conversations.last_seq + excluded.last_seq
			RETURNING id, last_seq`, args...).Scan(&rows).Error
		if err != nil {
			return err
		}
		heads = append(heads, rows...)
	}
	if len(heads) != len(counts) {
		return fmt.Errorf("number messages: %d conversations of %d", len(heads), len(counts))
	}
	next := make(map[contract.Conversation]int64, len(heads))
	var started []participant
	for _, h := range heads {
		next[h.ID] = h.LastSeq - counts[h.ID] + 1
		if h.LastSeq == counts[h.ID] {
			started = append(started, participants(h.ID)...)
		}
	}
	for _, r := range fresh {
		r.Message.Seq = next[r.Message.Conversation]
		next[r.Message.Conversation]++
	}
	return c.join(started)
}

type participant struct {
	user         contract.UserID
	conversation contract.Conversation
}

// participants answers the two of a direct conversation, once if they are one.
func participants(id contract.Conversation) []participant {
	parties, err := id.Parse()
	switch {
	case err != nil || parties.Room != 0: // names were checked at the door
		return nil
	case parties.Low == parties.High:
		return []participant{{parties.Low, id}}
	}
	return []participant{{parties.Low, id}, {parties.High, id}}
}

func (c committer) join(started []participant) error {
	for some := range slices.Chunk(started, c.dialect.maxRows()) {
		with, args := c.dialect.with(
			col("user_id", "bigint", some, func(p participant) int64 { return int64(p.user) }),
			col("conversation_id", "text", some, func(p participant) string { return string(p.conversation) }),
		)
		err := c.tx.Exec(with+`INSERT INTO participants (user_id, conversation_id)
			SELECT user_id, conversation_id FROM v WHERE true ON CONFLICT DO NOTHING`, args...).Error
		if err != nil {
			return err
		}
	}
	return nil
}

// insert stores the numbered messages and their outbox rows.
func (c committer) insert(fresh []*CommitResult) error {
	type result = *CommitResult
	id := col("id", "bigint", fresh, func(r result) int64 { return int64(r.Message.ID) })
	seq := col("seq", "bigint", fresh, func(r result) int64 { return r.Message.Seq })
	createdAt := col("created_at", "bigint", fresh, func(r result) int64 { return r.Message.CreatedAt.UnixMilli() })

	with, args := c.dialect.with(id, seq, createdAt,
		col("conversation_id", "text", fresh, func(r result) string { return string(r.Message.Conversation) }),
		col("traceparent", "text", fresh, func(r result) string { return r.Message.Traceparent }),
		col("sender_id", "bigint", fresh, func(r result) int64 { return int64(r.Message.From) }),
		col("recipient_id", "bigint", fresh, func(r result) int64 { return int64(r.Message.To) }),
		col("room_id", "bigint", fresh, func(r result) int64 { return int64(r.Message.Room) }),
		col("client_id", "text", fresh, func(r result) string { return r.Message.ClientID }),
		col("text", "text", fresh, func(r result) string { return r.Message.Text }),
	)
	err := c.tx.Exec(with+`INSERT INTO messages (id, conversation_id, seq, traceparent, created_at,
			sender_id, recipient_id, room_id, client_id, text)
		SELECT id, conversation_id, seq, traceparent, created_at,
			sender_id, recipient_id, room_id, client_id, text FROM v`, args...).Error
	if err != nil {
		return err
	}
	with, args = c.dialect.with(id, seq, createdAt)
	var rows []struct {
		Position  contract.OutboxPosition
		MessageID contract.MessageID
	}
	err = c.tx.Raw(with+`INSERT INTO outbox (message_id, created_at) SELECT id, created_at FROM v ORDER BY seq
		RETURNING position, message_id`, args...).Scan(&rows).Error
	if err != nil {
		return err
	}
	at := make(map[contract.MessageID]contract.OutboxPosition, len(rows))
	for _, row := range rows {
		at[row.MessageID] = row.Position
	}
	for _, r := range fresh {
		r.Outbox = at[r.Message.ID]
	}
	return nil
}
