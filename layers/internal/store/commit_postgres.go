package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gorm.io/gorm"

	"gochat/layers/internal/contract"
)

// commitAtOnce is Commit of distinct messages in one statement, which is a transaction of its own: a commit costs one
// way to PostgreSQL and back.
//
// All parts of the statement see the messages as they were when it began. If another one has stored the same client id
// since, the unique index refuses this one, and the next try sees it.
const commitAtOnceSQL = `,
gone AS (DELETE FROM outbox WHERE message_id = ANY (?::bigint[])),
-- A subquery for each row: a join, planned while the table was small, would go on reading all of it when it is large.
known AS (
	SELECT v.*, CASE WHEN v.client_id <> '' THEN (
		SELECT m.id FROM messages m WHERE m.sender_id = v.sender_id AND m.client_id = v.client_id AND m.client_id <> ''
	) END AS earlier FROM v
),
fresh AS (
	SELECT known.*, row_number() OVER (PARTITION BY conversation_id ORDER BY ord) AS place, count(*) OVER (PARTITION BY conversation_id) AS places
	FROM known WHERE earlier IS NULL
),
-- In order of id, so that all committers lock conversations in the same order.
heads AS (
	INSERT INTO conversations (id, last_seq) SELECT conversation_id, count(*) FROM fresh GROUP BY conversation_id ORDER BY conversation_id
	ON CONFLICT (id) DO UPDATE SET last_seq = conversations.last_seq + excluded.last_seq
	RETURNING id, last_seq
),
numbered AS (
	SELECT fresh.*, heads.last_seq - places + place AS seq FROM fresh JOIN heads ON heads.id = conversation_id
),
stored AS (
	INSERT INTO messages (id, conversation_id, seq, traceparent, created_at, sender_id, recipient_id, room_id, client_id, text)
	SELECT id, conversation_id, seq, traceparent, created_at, sender_id, recipient_id, room_id, client_id, text FROM numbered
),
queued AS (
	INSERT INTO outbox (message_id, conversation_id, seq, created_at)
	SELECT id, conversation_id, seq, created_at FROM numbered ORDER BY conversation_id, seq
),
begun AS (
	INSERT INTO participants (user_id, conversation_id)
	SELECT low, conversation_id FROM numbered WHERE seq = 1 AND low <> 0
	UNION SELECT high, conversation_id FROM numbered WHERE seq = 1 AND high <> 0
	ON CONFLICT DO NOTHING
)
SELECT ord, seq FROM numbered UNION ALL SELECT ord, 0 FROM known WHERE earlier IS NOT NULL`

func (s *Store) commitAtOnce(ctx context.Context, distinct []*CommitResult, published []contract.MessageID) error {
	type result = *CommitResult
	parties := func(r result) contract.Parties {
		p, _ := r.Message.Conversation.Parse() // names were checked at the door
		return p
	}
	ord := int64(-1)
	with, args := s.dialect.with(
		col("ord", "bigint", distinct, func(result) int64 { ord++; return ord }),
		col("id", "bigint", distinct, func(r result) int64 { return int64(r.Message.ID) }),
		col("conversation_id", "text", distinct, func(r result) string { return string(r.Message.Conversation) }),
		col("low", "bigint", distinct, func(r result) int64 { return int64(parties(r).Low) }),
		col("high", "bigint", distinct, func(r result) int64 { return int64(parties(r).High) }),
		col("traceparent", "text", distinct, func(r result) string { return r.Message.Traceparent }),
		col("created_at", "bigint", distinct, func(r result) int64 { return r.Message.CreatedAt.UnixMilli() }),
		col("sender_id", "bigint", distinct, func(r result) int64 { return int64(r.Message.From) }),
		col("recipient_id", "bigint", distinct, func(r result) int64 { return int64(r.Message.To) }),
		col("room_id", "bigint", distinct, func(r result) int64 { return int64(r.Message.Room) }),
		col("client_id", "text", distinct, func(r result) string { return r.Message.ClientID }),
		col("text", "text", distinct, func(r result) string { return r.Message.Text }),
	)
	args = append(args, col("published", "bigint", published, func(id contract.MessageID) int64 { return int64(id) }).array)
	var rows []numbered
	err := s.retry(ctx, func(db *gorm.DB) (err error) {
		rows, err = numberedRows(db.Raw(with+commitAtOnceSQL, args...))
		return err
	})
	if err != nil {
		return err
	}
	if len(rows) != len(distinct) {
		return fmt.Errorf("number messages: %d of %d", len(rows), len(distinct))
	}
	var earlier []*CommitResult
	for _, r := range rows {
		if distinct[r.Ord].Message.Seq = r.Seq; r.Seq == 0 {
			earlier = append(earlier, distinct[r.Ord])
		}
	}
	if len(earlier) == 0 {
		return nil
	}
	// What is new is stored by now: the look for the rest gets time of its own, and a second try.
	stored, err := s.loadEarlier(ctx, earlier)
	if err != nil {
		stored, err = s.loadEarlier(ctx, earlier)
	}
	if err != nil {
		return err
	}
	for _, r := range earlier {
		*r = CommitResult{Message: stored[sent{r.Message.From, r.Message.ClientID}], Duplicate: true}
	}
	return nil
}

// numbered is which seq a message of the batch has got, 0 if its client id is known.
type numbered struct{ Ord, Seq int64 }

// numberedRows reads the rows by hand: gorm's Scan renders the statement with all its values for a log that nobody keeps.
func numberedRows(query *gorm.DB) (all []numbered, err error) {
	rows, err := query.Rows()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var n numbered
		if err := rows.Scan(&n.Ord, &n.Seq); err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	return all, rows.Err()
}

func (s *Store) loadEarlier(ctx context.Context, earlier []*CommitResult) (map[sent]contract.Message, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), loadTimeout)
	defer cancel()
	return committer{tx: s.query(ctx), dialect: s.dialect}.duplicates(earlier)
}

// loadTimeout bounds the look for messages that were stored before.
const loadTimeout = 3 * time.Second
