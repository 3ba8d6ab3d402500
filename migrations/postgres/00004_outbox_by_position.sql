-- A row is known by its position alone: an index less to keep for each message. Its message says the rest.

-- +goose Up
ALTER TABLE outbox DROP CONSTRAINT outbox_message_id_key;
ALTER TABLE outbox DROP COLUMN conversation_id;
ALTER TABLE outbox DROP COLUMN seq;

-- +goose Down
ALTER TABLE outbox ADD COLUMN conversation_id text COLLATE "C";
ALTER TABLE outbox ADD COLUMN seq bigint;
UPDATE outbox SET conversation_id = m.conversation_id, seq = m.seq FROM messages m WHERE m.id = outbox.message_id;
ALTER TABLE outbox ALTER COLUMN conversation_id SET NOT NULL;
ALTER TABLE outbox ALTER COLUMN seq SET NOT NULL;
ALTER TABLE outbox ADD CONSTRAINT outbox_message_id_key UNIQUE (message_id);
