-- Every created_at is in unix milliseconds, UTC.

-- +goose Up
CREATE TABLE users (
    id            INTEGER PRIMARY KEY AUTOINCREMENT, -- an id is never given twice
    name          TEXT NOT NULL UNIQUE,
    password_hash TEXT NOT NULL,
    created_at    INTEGER NOT NULL
) STRICT;

CREATE TABLE rooms (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    name        TEXT NOT NULL,
    name_folded TEXT NOT NULL, -- lower case by the program's rules: the two databases' own differ
    private     INTEGER NOT NULL,
    owner_id    INTEGER REFERENCES users (id), -- null for the lobby
    created_at  INTEGER NOT NULL
) STRICT;

INSERT INTO rooms (id, name, name_folded, private, created_at)
VALUES (1, 'lobby', 'lobby', 0, CAST(strftime('%s', 'now') AS INTEGER) * 1000);

CREATE TABLE members (
    room_id   INTEGER NOT NULL REFERENCES rooms (id),
    user_id   INTEGER NOT NULL REFERENCES users (id),
    joined_at INTEGER NOT NULL,
    PRIMARY KEY (room_id, user_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX members_user ON members (user_id, room_id);

-- +goose Down
DROP TABLE members;
DROP TABLE rooms;
DROP TABLE users;
