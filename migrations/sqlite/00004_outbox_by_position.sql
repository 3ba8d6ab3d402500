-- A row is known by its position alone, which is never used again. Its message says the rest.

-- +goose Up
CREATE TABLE outbox_by_position (
    position   INTEGER PRIMARY KEY AUTOINCREMENT,
    message_id INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
INSERT INTO outbox_by_position (position, message_id, created_at) SELECT position, message_id, created_at FROM outbox ORDER BY position;
DROP TABLE outbox;
ALTER TABLE outbox_by_position RENAME TO outbox;

-- +goose Down
CREATE TABLE outbox_by_message (
    position        INTEGER PRIMARY KEY,
    message_id      INTEGER NOT NULL UNIQUE,
    conversation_id TEXT NOT NULL,
    created_at      INTEGER NOT NULL,
    seq             INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO outbox_by_message (position, message_id, conversation_id, created_at, seq)
    SELECT o.position, o.message_id, m.conversation_id, o.created_at, m.seq
    FROM outbox o JOIN messages m ON m.id = o.message_id ORDER BY o.position;
DROP TABLE outbox;
ALTER TABLE outbox_by_message RENAME TO outbox;
