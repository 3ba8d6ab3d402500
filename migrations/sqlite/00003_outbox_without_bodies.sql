-- A row names its message; what goes to the queue is made of the message when it is needed, which is seldom.

-- +goose Up
ALTER TABLE outbox ADD COLUMN seq INTEGER NOT NULL DEFAULT 0;
UPDATE outbox SET seq = (SELECT m.seq FROM messages m WHERE m.id = outbox.message_id);
ALTER TABLE outbox DROP COLUMN body;
ALTER TABLE outbox DROP COLUMN traceparent;

-- +goose Down
-- What waits cannot be given its body back here: it stays in the history, where its receivers find it.
DELETE FROM outbox;
ALTER TABLE outbox DROP COLUMN seq;
ALTER TABLE outbox ADD COLUMN traceparent TEXT NOT NULL DEFAULT '';
ALTER TABLE outbox ADD COLUMN body BLOB NOT NULL DEFAULT x'';
