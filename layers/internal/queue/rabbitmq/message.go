package rabbitmq

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"gochat/layers/internal/queue"
)

// The header fields of a message.
const (
	fieldKey      = "key"
	fieldHeaders  = "headers"  // a table
	fieldEnqueued = "enqueued" // Unix time in ms by the publisher's clock; the timestamp property has whole seconds
	fieldReason   = "reason"   // of what is set aside
)

// The header of a message is one frame, of at most 128 KB unless the broker is told otherwise, and a larger one ends
// the connection.
const (
	maxHeader = 64 << 10
	maxReason = 16 << 10
	maxName   = 255 // of a header of an item
)

// encode is the item as a message. It shares the body.
func encode(it queue.Item, now time.Time) (amqp.Publishing, error) {
	size := len(it.Key)
	fields := amqp.Table{fieldKey: it.Key, fieldEnqueued: now.UnixMilli()}
	if len(it.Headers) > 0 {
		table := make(amqp.Table, len(it.Headers))
		for k, v := range it.Headers {
			if len(k) > maxName {
				return amqp.Publishing{}, fmt.Errorf("a header's name has %d bytes, more than %d", len(k), maxName)
			}
			table[k] = v
			size += len(k) + len(v) + 8
		}
		fields[fieldHeaders] = table
	}
	if size > maxHeader {
		return amqp.Publishing{}, fmt.Errorf("key and headers have %d bytes, more than %d", size, maxHeader)
	}
	return amqp.Publishing{
		Headers: fields, Body: it.Body, Timestamp: now, DeliveryMode: amqp.Persistent,
		ContentType: "application/octet-stream",
	}, nil
}

var errForeign = errors.New("the message is no delivery: a key and a table of headers are not there")

// decode is the message as an item, with a body of its own.
func decode(d amqp.Delivery) (queue.Item, error) {
	key, isKey := d.Headers[fieldKey].(string)
	table, isTable := d.Headers[fieldHeaders].(amqp.Table)
	if _, has := d.Headers[fieldHeaders]; !isKey || has && !isTable {
		return queue.Item{}, errForeign
	}
	it := queue.Item{Key: key, Body: bytes.Clone(d.Body), EnqueuedAt: enqueuedAt(d)}
	if isTable {
		it.Headers = make(map[string]string, len(table))
	}
	for k, v := range table {
		text, is := v.(string)
		if !is {
			return queue.Item{}, errForeign
		}
		it.Headers[k] = text
	}
	return it, nil
}

func enqueuedAt(d amqp.Delivery) time.Time {
	if ms, is := d.Headers[fieldEnqueued].(int64); is {
		return time.UnixMilli(ms)
	}
	return d.Timestamp
}

// deliveries is how often the message has been delivered, this time included.
func deliveries(d amqp.Delivery) int {
	switch before := d.Headers["x-delivery-count"].(type) {
	case int64:
		return int(before) + 1
	case int32:
		return int(before) + 1
	}
	if d.Redelivered {
		return 2
	}
	return 1
}
