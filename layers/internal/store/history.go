package store

import (
	"context"
	"slices"
	"time"

	"gorm.io/gorm"

	"gochat/layers/internal/contract"
)

// messageRow is a message as messageColumns selects it, in columns or in JSON.
type messageRow struct {
	ID             contract.MessageID    `json:"id"`
	ConversationID contract.Conversation `json:"conversation_id"`
	Seq            int64                 `json:"seq"`
	SenderID       contract.UserID       `json:"sender_id"`
	SenderName     string                `json:"sender_name"`
	RecipientID    contract.UserID       `json:"recipient_id"`
	RecipientName  string                `json:"recipient_name"`
	RoomID         contract.RoomID       `json:"room_id"`
	ClientID       string                `json:"client_id"`
	Text           string                `json:"text"`
	Traceparent    string                `json:"traceparent"`
	CreatedAt      int64                 `json:"created_at"`
}

// Names are those of now: they are kept with the user, not with each message.
const (
	messageColumns = `m.id, m.conversation_id, m.seq, m.sender_id, COALESCE(s.name, '') AS sender_name,
		m.recipient_id, COALESCE(r.name, '') AS recipient_name, m.room_id, m.client_id, m.text, m.traceparent, m.created_at`
	messageNames = ` LEFT JOIN users s ON s.id = m.sender_id LEFT JOIN users r ON r.id = m.recipient_id`
)

func (r *messageRow) message() contract.Message {
	return contract.Message{
		ID: r.ID, Conversation: r.ConversationID, Seq: r.Seq,
		From: r.SenderID, FromName: r.SenderName, To: r.RecipientID, ToName: r.RecipientName, Room: r.RoomID,
		ClientID: r.ClientID, Text: r.Text, Traceparent: r.Traceparent, CreatedAt: time.UnixMilli(r.CreatedAt).UTC(),
	}
}

// History answers at most limit messages with a seq above after in ascending order: the first ones, or, if before
// is not 0, the last ones below it. More says that there are further ones in the direction asked for.
func (s *Store) History(ctx context.Context, c contract.Conversation, after, before int64, limit int) (msgs []contract.Message, more bool, err error) {
	ctx, end := s.begin(ctx, "load history")
	defer end(&err)
	query, args := `SELECT `+messageColumns+` FROM messages m`+messageNames+` WHERE m.conversation_id = ? AND m.seq > ?`, []any{string(c), after}
	if before != 0 {
		query, args = query+` AND m.seq < ? ORDER BY m.seq DESC LIMIT ?`, append(args, before, limit+1)
	} else {
		query, args = query+` ORDER BY m.seq LIMIT ?`, append(args, limit+1)
	}
	var rows []messageRow
	if err := s.query(ctx).Raw(query, args...).Scan(&rows).Error; err != nil {
		return nil, false, err
	}
	rows, more = page(rows, limit)
	if before != 0 {
		slices.Reverse(rows)
	}
	for i := range rows {
		msgs = append(msgs, rows[i].message())
	}
	return msgs, more, nil
}

// Heads answers the last seq of each conversation that has a message.
func (s *Store) Heads(ctx context.Context, conversations []contract.Conversation) (_ map[contract.Conversation]int64, err error) {
	ctx, end := s.begin(ctx, "load heads")
	defer end(&err)
	heads := make(map[contract.Conversation]int64, len(conversations))
	for some := range slices.Chunk(conversations, s.dialect.maxRows()) {
		with, args := s.dialect.with(col("id", "text", some, func(c contract.Conversation) string { return string(c) }))
		var rows []struct {
			ID      contract.Conversation
			LastSeq int64
		}
		err := s.query(ctx).Raw(with+`SELECT id, last_seq FROM conversations WHERE id IN (SELECT id FROM v)`, args...).Scan(&rows).Error
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			heads[r.ID] = r.LastSeq
		}
	}
	return heads, nil
}

// LastBefore answers the last seq below before that was accepted before the time, 0 if there is none.
func (s *Store) LastBefore(ctx context.Context, c contract.Conversation, since time.Time, before int64) (last int64, err error) {
	ctx, end := s.begin(ctx, "load last before")
	defer end(&err)
	err = s.query(ctx).Raw(`SELECT COALESCE((SELECT seq FROM messages
		WHERE conversation_id = ? AND seq < ? AND created_at < ? ORDER BY seq DESC LIMIT 1), 0)`, string(c), before, since.UnixMilli()).Scan(&last).Error
	return last, err
}

// DirectHeads answers the last seq of each direct conversation of the users of which the last message was accepted at
// the user's Since or later.
func (s *Store) DirectHeads(ctx context.Context, users []contract.UserSince) (heads []contract.UserHead, err error) {
	ctx, end := s.begin(ctx, "load direct heads")
	defer end(&err)
	for some := range slices.Chunk(users, s.dialect.maxRows()) {
		with, args := s.dialect.with(
			col("user_id", "bigint", some, func(u contract.UserSince) int64 { return int64(u.User) }),
			col("since", "bigint", some, func(u contract.UserSince) int64 { return u.Since.UnixMilli() }),
		)
		var rows []struct {
			UserID         contract.UserID
			ConversationID contract.Conversation
			LastSeq        int64
		}
		// Subqueries for what a large table has: a join, planned while it was small, would go on reading all of it.
		err := s.query(ctx).Raw(with+`SELECT user_id, conversation_id, last_seq FROM (
				SELECT v.user_id, v.since, p.conversation_id, (SELECT c.last_seq FROM conversations c WHERE c.id = p.conversation_id) AS last_seq
				FROM v CROSS JOIN participants p WHERE p.user_id = v.user_id
			) mine
			WHERE (SELECT m.created_at FROM messages m WHERE m.conversation_id = mine.conversation_id AND m.seq = mine.last_seq) >= since`,
			args...).Scan(&rows).Error
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			heads = append(heads, contract.UserHead{User: r.UserID, Conversation: r.ConversationID, Last: r.LastSeq})
		}
	}
	return heads, nil
}

// Trim deletes the messages of a conversation with a seq below the given one, but for those that are in the outbox, which
// may have to be published yet. What follows them keeps its seq, and the conversation goes on with its next one.
func (s *Store) Trim(ctx context.Context, c contract.Conversation, below int64) (err error) {
	ctx, end := s.begin(ctx, "trim conversation")
	defer end(&err)
	return s.update(ctx, func(db *gorm.DB) error {
		return db.Exec(`DELETE FROM messages WHERE conversation_id = ? AND seq < ?
			AND id NOT IN (SELECT message_id FROM outbox)`, string(c), below).Error
	})
}
