package kafka

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"gochat/layers/internal/queue"
)

// record keeps no reference to the item.
func record(topic string, p int, it queue.Item) *kgo.Record {
	r := &kgo.Record{
		Topic: topic, Partition: int32(p),
		Key: append(make([]byte, 0, len(it.Key)), it.Key...), // not nil, even if it is empty
		// A body that is nil would be a tombstone to whoever else reads the topic.
		Value: append(make([]byte, 0, len(it.Body)), it.Body...),
	}
	for _, k := range slices.Sorted(maps.Keys(it.Headers)) {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: k, Value: []byte(it.Headers[k])})
	}
	return r
}

func recordBytes(r *kgo.Record) int {
	n := len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		n += len(h.Key) + len(h.Value) + 10 // their lengths
	}
	return n
}

var errForeign = errors.New("the record has no key")

// decode fails for a record that gochat cannot have written.
func decode(r *kgo.Record, partitions int) (queue.Item, error) {
	if r.Key == nil {
		return queue.Item{}, errForeign
	}
	it := queue.Item{Key: string(r.Key), Body: r.Value, EnqueuedAt: r.Timestamp}
	if want := queue.Partition(it.Key, partitions); int32(want) != r.Partition {
		return queue.Item{}, fmt.Errorf("the record's key is one of partition %d", want)
	}
	if len(r.Headers) > 0 {
		it.Headers = make(map[string]string, len(r.Headers))
	}
	for _, h := range r.Headers {
		it.Headers[h.Key] = string(h.Value)
	}
	return it, nil
}
