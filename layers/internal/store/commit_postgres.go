package store

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"gorm.io/gorm"

	"gochat/layers/internal/contract"
)

// commitAtOnce is Commit of distinct messages in one statement, which is a transaction of its own: a commit costs one
// way to PostgreSQL and back.
//
// All parts of the statement see the messages as they were when it began. If another one has stored the same client id
// since, the unique index refuses this one, and the next try sees it.
//
// The second parameter says that the same batch was tried before with an unknown outcome: then a message that is stored
// under its own id is known as well. A first try that is still on its way and a second one exclude each other by the
// unique index on the ids, whichever comes first.
const commitAtOnceSQL = `,
gone AS (DELETE FROM outbox WHERE position = ANY (?::bigint[])),
-- A subquery for each row: a join, planned while the table was small, would go on reading all of it when it is large.
known AS (
	SELECT v.*, COALESCE(CASE WHEN v.client_id <> '' THEN (
		SELECT m.id FROM messages m WHERE m.sender_id = v.sender_id AND m.client_id = v.client_id AND m.client_id <> ''
	) END, CASE WHEN ?::boolean THEN (
		SELECT m.id FROM messages m WHERE m.id = v.id AND m.sender_id = v.sender_id AND m.conversation_id = v.conversation_id
	) END) AS earlier FROM v
),
-- Where those wait that the earlier try has stored. One pass over the outbox, which has no index for it.
waiting AS MATERIALIZED (SELECT position, message_id FROM outbox WHERE ?::boolean AND message_id IN (SELECT id FROM v)),
fresh AS (
	SELECT known.*, row_number() OVER (conversation ORDER BY ord) AS place, count(*) OVER conversation AS places,
		dense_rank() OVER (ORDER BY conversation_id COLLATE "C") AS nth
	FROM known WHERE earlier IS NULL
	WINDOW conversation AS (PARTITION BY conversation_id COLLATE "C")
),
-- In order of id, so that all committers lock conversations in the same order.
heads AS (
	INSERT INTO conversations (id, last_seq) SELECT conversation_id, count(*) FROM fresh GROUP BY conversation_id ORDER BY conversation_id
	ON CONFLICT (id) DO UPDATE SET last_seq = conversations.last_seq + excluded.last_seq
	RETURNING id, last_seq
),
-- The nth head of all by their names: to join them would be to compare each message with each of them.
numbered AS (
	SELECT fresh.*, (SELECT array_agg(last_seq ORDER BY id) FROM heads)[nth] - places + place AS seq FROM fresh
),
-- Positions are drawn when all that is above is done: while the conversations are held, and in the order of seq.
placed AS (
	SELECT n.*, nextval('outbox_position_seq') AS position FROM (SELECT * FROM numbered ORDER BY conversation_id, seq) n
),
stored AS (
	INSERT INTO messages (id, conversation_id, seq, traceparent, created_at, sender_id, recipient_id, room_id, client_id, text)
	SELECT id, conversation_id, seq, traceparent, created_at, sender_id, recipient_id, room_id, client_id, text FROM numbered
),
queued AS (
	INSERT INTO outbox (position, message_id, created_at) OVERRIDING SYSTEM VALUE SELECT position, id, created_at FROM placed
),
begun AS (
	INSERT INTO participants (user_id, conversation_id)
	SELECT low, conversation_id FROM numbered WHERE seq = 1 AND low <> 0
	UNION SELECT high, conversation_id FROM numbered WHERE seq = 1 AND high <> 0
	ON CONFLICT DO NOTHING
)
-- Of the earlier ones all is answered here: a second statement for them could fail when what is new is stored.
SELECT ord, seq, position, NULL AS earlier FROM placed
UNION ALL SELECT ord, 0, COALESCE((SELECT position FROM waiting WHERE message_id = known.earlier), 0), (
	SELECT row_to_json(e) FROM (SELECT ` + messageColumns + ` FROM messages m` + messageNames + ` WHERE m.id = known.earlier) e
)::text FROM known WHERE earlier IS NOT NULL`

// commitSurely is commitAtOnce that goes on, if the answer got lost, until it has one: for settleLimit at most, and until
// ctx ends. Then the error is contract.ErrUncertain.
func (s *Store) commitSurely(ctx context.Context, distinct []*CommitResult, published []contract.OutboxPosition) error {
	err := s.commitAtOnce(ctx, distinct, published, false)
	if !errors.Is(err, contract.ErrUncertain) {
		return err
	}
	s.telemetry.uncertain.Inc()
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	for wait(ctx, settlePause) {
		// Any error: while the database is away, and when the first try came through just now.
		if s.commitAtOnce(ctx, distinct, published, true) == nil {
			return nil
		}
	}
	return err
}

const (
	settleLimit = 5 * time.Second
	settlePause = 50 * time.Millisecond
)

// wait is false if ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

func (s *Store) commitAtOnce(ctx context.Context, distinct []*CommitResult, published []contract.OutboxPosition, again bool) error {
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
	args = append(args, positions(published).array, again, again)
	var rows []committed
	err := s.retry(ctx, func(db *gorm.DB) (err error) {
		rows, err = committedRows(db.Raw(with+commitAtOnceSQL, args...))
		return outcome(err)
	})
	if err != nil {
		return err
	}
	if len(rows) != len(distinct) {
		return fmt.Errorf("%w: number messages: %d of %d", contract.ErrUncertain, len(rows), len(distinct))
	}
	for _, row := range rows {
		r := distinct[row.Ord]
		if row.Earlier == nil {
			r.Message.Seq, r.Outbox = row.Seq, row.Position
			continue
		}
		var stored messageRow
		if err := json.Unmarshal([]byte(*row.Earlier), &stored); err != nil {
			return fmt.Errorf("%w: read earlier message: %w", contract.ErrUncertain, err)
		}
		*r = CommitResult{Message: stored.message(), Duplicate: stored.ID != r.Message.ID, Outbox: row.Position}
	}
	return nil
}

// committed is what became of one message of the batch.
type committed struct {
	Ord, Seq int64
	Position contract.OutboxPosition
	Earlier  *string // JSON
}

// committedRows reads the rows by hand: gorm's Scan renders the statement with all its values for a log that nobody keeps.
func committedRows(query *gorm.DB) (all []committed, err error) {
	rows, err := query.Rows()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var one committed
		if err := rows.Scan(&one.Ord, &one.Seq, &one.Position, &one.Earlier); err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, rows.Err()
}

// outcome marks the error of a statement that commits as contract.ErrUncertain, unless it says that nothing was stored:
// the server refused the statement, or has never seen it.
func outcome(err error) error {
	var refused *pgconn.PgError
	var unreachable *pgconn.ConnectError
	switch {
	case err == nil, errors.As(err, &unreachable), errors.Is(err, driver.ErrBadConn), pgconn.SafeToRetry(err):
		return err
	// A FATAL one ends the connection, and may do so when the commit is done.
	case errors.As(err, &refused) && refused.SeverityUnlocalized == "ERROR":
		return err
	}
	return fmt.Errorf("%w: %w", contract.ErrUncertain, err)
}
