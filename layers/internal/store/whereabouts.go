package store

import (
	"context"
	"time"

	"gochat/layers/internal/contract"
)

// Stored answers what is stored of a message, but for what it says. NotFound if no message has the id.
//
// The outbox has no index by message: it is read until the message's row is found. In a healthy system it has next to
// no rows.
func (s *Store) Stored(ctx context.Context, id contract.MessageID) (_ contract.StoredMessage, err error) {
	ctx, end := s.begin(ctx, "load stored message")
	defer end(&err)
	var rows []struct {
		ID             contract.MessageID
		ConversationID contract.Conversation
		Seq            int64
		SenderID       contract.UserID
		SenderName     string
		RecipientID    contract.UserID
		RecipientName  string
		Traceparent    string
		CreatedAt      int64
		Waits          bool
	}
	err = s.query(ctx).Raw(`SELECT m.id, m.conversation_id, m.seq, m.sender_id, COALESCE(s.name, '') AS sender_name,
			m.recipient_id, COALESCE(r.name, '') AS recipient_name, m.traceparent, m.created_at,
			EXISTS (SELECT 1 FROM outbox o WHERE o.message_id = m.id) AS waits
		FROM messages m`+messageNames+` WHERE m.id = ?`, id).Scan(&rows).Error
	if err != nil {
		return contract.StoredMessage{}, err
	}
	if len(rows) == 0 {
		return contract.StoredMessage{}, contract.Errorf(contract.NotFound, "message %s", id)
	}
	r := rows[0]
	return contract.StoredMessage{
		ID: r.ID, Conversation: r.ConversationID, Seq: r.Seq, From: r.SenderID, FromName: r.SenderName, To: r.RecipientID, ToName: r.RecipientName,
		CreatedAt: time.UnixMilli(r.CreatedAt).UTC(), Traceparent: r.Traceparent, WaitsInOutbox: r.Waits,
	}, nil
}
