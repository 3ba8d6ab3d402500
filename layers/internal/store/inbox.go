package store

import (
	"context"

	"gorm.io/gorm"

	"gochat/layers/internal/contract"
)

// MarkRead moves the user's read mark forward to seq, but not above the conversation's last message, and answers
// the mark after the call. It is 0, and nothing is kept, in a conversation without messages.
func (s *Store) MarkRead(ctx context.Context, user contract.UserID, c contract.Conversation, seq int64) (mark int64, err error) {
	ctx, end := s.begin(ctx, "mark read")
	defer end(&err)
	err = s.update(ctx, func(db *gorm.DB) error {
		return db.Raw(`INSERT INTO read_marks (user_id, conversation_id, seq)
			SELECT CAST(? AS bigint), id, CASE WHEN last_seq < ? THEN last_seq ELSE CAST(? AS bigint) END
			FROM conversations WHERE id = ?
			ON CONFLICT (user_id, conversation_id) DO UPDATE SET seq =
				CASE WHEN read_marks.seq < excluded.seq THEN excluded.seq ELSE read_marks.seq END
			RETURNING seq`, int64(user), seq, max(seq, 0), string(c)).Scan(&mark).Error
	})
	return mark, err
}

// Inbox answers the user's direct conversations and joined rooms: the one with the latest message first, rooms in
// which nothing was said last, at most limit. Own messages are never unread.
func (s *Store) Inbox(ctx context.Context, user contract.UserID, limit int) (_ []contract.InboxEntry, err error) {
	ctx, end := s.begin(ctx, "load inbox")
	defer end(&err)
	var rows []struct {
		Last         messageRow `gorm:"embedded"`
		Conversation contract.Conversation
		LastSeq      int64
		ReadSeq      int64
		OwnUnread    int64
	}
	// The inner query picks the conversations, so that own messages are counted for those alone.
	err = s.query(ctx).Raw(`SELECT mine.*, (SELECT count(*) FROM messages own WHERE own.sender_id = ?
				AND own.conversation_id = mine.conversation AND own.seq > mine.read_seq) AS own_unread
		FROM (
			SELECT p.id AS conversation, COALESCE(c.last_seq, 0) AS last_seq, COALESCE(mark.seq, 0) AS read_seq, `+messageColumns+`
			FROM (SELECT conversation_id AS id FROM participants WHERE user_id = ?
				UNION ALL SELECT 'room:' || room_id FROM members WHERE user_id = ?) p
			LEFT JOIN conversations c ON c.id = p.id
			LEFT JOIN read_marks mark ON mark.conversation_id = p.id AND mark.user_id = ?
			LEFT JOIN messages m ON m.conversation_id = p.id AND m.seq = c.last_seq`+messageNames+`
			ORDER BY m.created_at DESC NULLS LAST, m.id DESC, p.id LIMIT ?
		) mine
		ORDER BY created_at DESC NULLS LAST, id DESC, conversation`,
		int64(user), int64(user), int64(user), int64(user), limit).Scan(&rows).Error
	if err != nil {
		return nil, err
	}
	entries := make([]contract.InboxEntry, len(rows))
	for i, r := range rows {
		entries[i] = contract.InboxEntry{Conversation: r.Conversation, LastSeq: r.LastSeq, ReadSeq: r.ReadSeq,
			Unread: r.LastSeq - r.ReadSeq - r.OwnUnread}
		if r.LastSeq > 0 {
			last := r.Last.message()
			entries[i].Last = &last
		}
	}
	return entries, nil
}
