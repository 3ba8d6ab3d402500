-- No foreign key leads from here to users or rooms: each would cost a look-up and a row lock for every message,
-- and who may send was checked before.

-- +goose Up

-- Half-filled pages have space for a row's next version, so that an update of last_seq touches no index.
CREATE TABLE conversations (
    id       text COLLATE "C" PRIMARY KEY,
    last_seq bigint NOT NULL
) WITH (fillfactor = 50);

-- The two of each direct conversation.
CREATE TABLE participants (
    user_id         bigint NOT NULL,
    conversation_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (user_id, conversation_id)
);

CREATE TABLE messages (
    conversation_id text COLLATE "C" NOT NULL,
    seq             bigint NOT NULL,
    id              bigint NOT NULL UNIQUE,
    sender_id       bigint NOT NULL,
    recipient_id    bigint NOT NULL, -- 0 in a room
    room_id         bigint NOT NULL, -- 0 is none
    client_id       text COLLATE "C" NOT NULL, -- '' is none
    text            text NOT NULL,
    traceparent     text NOT NULL,
    created_at      bigint NOT NULL,
    PRIMARY KEY (conversation_id, seq)
);

CREATE UNIQUE INDEX messages_sender_client ON messages (sender_id, client_id) WHERE client_id <> '';

-- Counts a user's own messages after the read mark, so that an inbox does not read what others said.
CREATE INDEX messages_sender ON messages (sender_id, conversation_id, seq);

-- The position is drawn while the conversation's row is locked, so it ascends with seq in each conversation.
-- Rows live for milliseconds: dead ones are cleared by their number, not by their share.
CREATE TABLE outbox (
    position        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    message_id      bigint NOT NULL UNIQUE,
    conversation_id text COLLATE "C" NOT NULL,
    traceparent     text NOT NULL,
    body            bytea NOT NULL,
    created_at      bigint NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);

CREATE TABLE read_marks (
    user_id         bigint NOT NULL,
    conversation_id text COLLATE "C" NOT NULL,
    seq             bigint NOT NULL,
    PRIMARY KEY (user_id, conversation_id)
);

-- +goose Down
DROP TABLE read_marks;
DROP TABLE outbox;
DROP TABLE messages;
DROP TABLE participants;
DROP TABLE conversations;
