-- No foreign key leads from here to users or rooms: each would cost a look-up for every message, and who may send
-- was checked before.

-- +goose Up
CREATE TABLE conversations (
    id       TEXT NOT NULL PRIMARY KEY,
    last_seq INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The two of each direct conversation.
CREATE TABLE participants (
    user_id         INTEGER NOT NULL,
    conversation_id TEXT NOT NULL,
    PRIMARY KEY (user_id, conversation_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE messages (
    conversation_id TEXT NOT NULL,
    seq             INTEGER NOT NULL,
    id              INTEGER NOT NULL UNIQUE,
    sender_id       INTEGER NOT NULL,
    recipient_id    INTEGER NOT NULL, -- 0 in a room
    room_id         INTEGER NOT NULL, -- 0 is none
    client_id       TEXT NOT NULL, -- '' is none
    text            TEXT NOT NULL,
    traceparent     TEXT NOT NULL,
    created_at      INTEGER NOT NULL,
    PRIMARY KEY (conversation_id, seq)
) STRICT;

CREATE UNIQUE INDEX messages_sender_client ON messages (sender_id, client_id) WHERE client_id <> '';

-- Counts a user's own messages after the read mark, so that an inbox does not read what others said.
CREATE INDEX messages_sender ON messages (sender_id, conversation_id, seq);

-- Positions ascend with seq in each conversation: there is one writer.
CREATE TABLE outbox (
    position        INTEGER PRIMARY KEY,
    message_id      INTEGER NOT NULL UNIQUE,
    conversation_id TEXT NOT NULL,
    traceparent     TEXT NOT NULL,
    body            BLOB NOT NULL,
    created_at      INTEGER NOT NULL
) STRICT;

CREATE TABLE read_marks (
    user_id         INTEGER NOT NULL,
    conversation_id TEXT NOT NULL,
    seq             INTEGER NOT NULL,
    PRIMARY KEY (user_id, conversation_id)
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE read_marks;
DROP TABLE outbox;
DROP TABLE messages;
DROP TABLE participants;
DROP TABLE conversations;
