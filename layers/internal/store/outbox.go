package store

import (
	"context"
	"slices"
	"strconv"
	"time"

	"gorm.io/gorm"

	"gochat/layers/internal/contract"
)

// Outbox answers messages that were made before olderThan and are not known to be published, at most limit, in the
// order in which they were committed: those of one conversation by ascending seq. Of a conversation, it answers
// nothing that follows one it leaves out, so that publishing what it answers, in order, never puts a later message
// before an earlier one. It answers none of the rows behind the first limit ones of the outbox, so fewer than limit
// does not say that no more are due.
func (s *Store) Outbox(ctx context.Context, olderThan time.Time, limit int) (due []contract.Message, err error) {
	ctx, end := s.begin(ctx, "load outbox")
	defer end(&err)
	var rows []messageRow
	// The inner query picks the rows, so that messages are looked up for those alone. The limit is in the text: were it a
	// parameter, PostgreSQL would plan for a tenth of the outbox, and rather read all messages.
	err = s.query(ctx).Raw(`SELECT ` + messageColumns + ` FROM (SELECT position, conversation_id, seq FROM outbox ORDER BY position LIMIT ` + strconv.Itoa(limit) + `) o
		JOIN messages m ON m.conversation_id = o.conversation_id AND m.seq = o.seq` + messageNames + ` ORDER BY o.position`).Scan(&rows).Error
	if err != nil {
		return nil, err
	}
	// Clocks of the nodes that made the messages may differ, so a later message can look older than an earlier one.
	young := make(map[contract.Conversation]bool)
	for i := range rows {
		m := rows[i].message()
		if young[m.Conversation] || !m.CreatedAt.Before(olderThan) {
			young[m.Conversation] = true
			continue
		}
		due = append(due, m)
	}
	return due, nil
}

// DeleteOutbox deletes the rows of the messages; those that are gone already are no error. All or none are deleted.
func (s *Store) DeleteOutbox(ctx context.Context, ids []contract.MessageID) (err error) {
	ctx, end := s.begin(ctx, "delete outbox rows")
	defer end(&err)
	if len(ids) == 0 {
		return nil
	}
	return s.transact(ctx, func(tx *gorm.DB) error { return deleteOutbox(tx, s.dialect, ids) })
}

func deleteOutbox(tx *gorm.DB, d dialect, ids []contract.MessageID) error {
	for some := range slices.Chunk(ids, d.maxRows()) {
		with, args := d.with(col("id", "bigint", some, func(id contract.MessageID) int64 { return int64(id) }))
		if err := tx.Exec(with+`DELETE FROM outbox WHERE message_id IN (SELECT id FROM v)`, args...).Error; err != nil {
			return err
		}
	}
	return nil
}

// OutboxSize answers how many rows wait, and when the oldest one's message was made; zero if none waits.
func (s *Store) OutboxSize(ctx context.Context) (count int64, oldest time.Time, err error) {
	ctx, end := s.begin(ctx, "measure outbox")
	defer end(&err)
	var row struct{ Count, Oldest int64 }
	err = s.query(ctx).Raw(`SELECT count(*) AS count, COALESCE(min(created_at), 0) AS oldest FROM outbox`).Scan(&row).Error
	if err != nil || row.Count == 0 {
		return 0, time.Time{}, err
	}
	return row.Count, time.UnixMilli(row.Oldest).UTC(), nil
}
