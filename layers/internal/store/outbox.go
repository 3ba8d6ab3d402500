package store

import (
	"context"
	"slices"
	"strconv"
	"time"

	"gorm.io/gorm"

	"gochat/layers/internal/contract"
)

// OutboxEnd is the position of the last row that is in the outbox now, 0 if there is none.
//
// Two transactions may commit in another order than that of their positions. Those of one conversation do not, since
// each draws its positions while it holds the conversation: so whoever reads up to an end that was asked for before
// finds, beside each row, all earlier ones of its conversation.
func (s *Store) OutboxEnd(ctx context.Context) (end contract.OutboxPosition, err error) {
	ctx, done := s.begin(ctx, "find end of outbox")
	defer done(&err)
	err = s.query(ctx).Raw(`SELECT COALESCE(max(position), 0) FROM outbox`).Scan(&end).Error
	return end, err
}

// Outbox answers the first limit rows behind after, up to end, by their positions.
func (s *Store) Outbox(ctx context.Context, after, end contract.OutboxPosition, limit int) (_ []contract.OutboxRow, err error) {
	ctx, done := s.begin(ctx, "load outbox")
	defer done(&err)
	var rows []struct {
		Position contract.OutboxPosition
		Row      messageRow `gorm:"embedded"`
	}
	// The inner query picks the rows, so that messages are looked up for those alone. The limit is in the text: were it a
	// parameter, PostgreSQL would plan for a tenth of the outbox, and rather read all messages.
	err = s.query(ctx).Raw(`SELECT o.position, `+messageColumns+` FROM (
			SELECT position, message_id FROM outbox WHERE position > ? AND position <= ? ORDER BY position LIMIT `+strconv.Itoa(limit)+`
		) o JOIN messages m ON m.id = o.message_id`+messageNames+` ORDER BY o.position`, after, end).Scan(&rows).Error
	if err != nil {
		return nil, err
	}
	found := make([]contract.OutboxRow, len(rows))
	for i := range rows {
		found[i] = contract.OutboxRow{Position: rows[i].Position, Message: rows[i].Row.message()}
	}
	return found, nil
}

// DeleteOutbox deletes the rows; those that are gone already are no error. All or none are deleted.
func (s *Store) DeleteOutbox(ctx context.Context, rows []contract.OutboxPosition) (err error) {
	ctx, end := s.begin(ctx, "delete outbox rows")
	defer end(&err)
	if len(rows) == 0 {
		return nil
	}
	return s.transact(ctx, func(tx *gorm.DB) error { return deleteOutbox(tx, s.dialect, rows) })
}

func deleteOutbox(tx *gorm.DB, d dialect, rows []contract.OutboxPosition) error {
	for some := range slices.Chunk(rows, d.maxRows()) {
		with, args := d.with(positions(some))
		if err := tx.Exec(with+`DELETE FROM outbox WHERE position IN (SELECT position FROM v)`, args...).Error; err != nil {
			return err
		}
	}
	return nil
}

func positions(rows []contract.OutboxPosition) column {
	return col("position", "bigint", rows, func(p contract.OutboxPosition) int64 { return int64(p) })
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
