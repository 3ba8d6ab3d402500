package store

import (
	"context"
	"slices"
	"time"

	"gorm.io/gorm"

	"gochat/layers/internal/contract"
)

// Outgoing is an outbox row: the queue item that announces a message.
type Outgoing = contract.Outgoing

// Outbox answers rows of messages made before olderThan, at most limit, in the order in which they were committed: those of one
// conversation by ascending seq. Of a conversation, it answers nothing that follows a row it leaves out, so that
// publishing what it answers, in order, never puts a later message before an earlier one. It answers none of the
// rows behind the first limit ones of the outbox, so fewer than limit does not say that no more are due.
func (s *Store) Outbox(ctx context.Context, olderThan time.Time, limit int) (due []Outgoing, err error) {
	ctx, end := s.begin(ctx, "load outbox")
	defer end(&err)
	var rows []struct {
		MessageID      contract.MessageID
		ConversationID string
		Traceparent    string
		Body           []byte
		CreatedAt      int64
	}
	err = s.query(ctx).Raw(`SELECT message_id, conversation_id, traceparent, body, created_at FROM outbox
		ORDER BY position LIMIT ?`, limit).Scan(&rows).Error
	if err != nil {
		return nil, err
	}
	// Clocks of the nodes that made the messages may differ, so a later message can look older than an earlier one.
	young := make(map[string]bool)
	for _, r := range rows {
		createdAt := time.UnixMilli(r.CreatedAt).UTC()
		if young[r.ConversationID] || !createdAt.Before(olderThan) {
			young[r.ConversationID] = true
			continue
		}
		due = append(due, Outgoing{ID: r.MessageID, Key: r.ConversationID, Traceparent: r.Traceparent, Body: r.Body, CreatedAt: createdAt})
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
