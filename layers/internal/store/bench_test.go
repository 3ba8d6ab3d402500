package store

import (
	"fmt"
	"testing"

	"gochat/layers/internal/contract"
)

// BenchmarkCommit tells messages per second; each commit deletes the outbox rows of the one before it, as in
// steady operation. The messages are of 20 conversations, or each of its own.
func BenchmarkCommit(b *testing.B) {
	for _, backend := range backends(b) {
		for _, c := range []struct{ size, spread int }{{1, 1}, {20, 20}, {100, 20}, {100, 100}, {500, 20}, {500, 500}} {
			size := c.size
			b.Run(fmt.Sprintf("%s/batch=%d/conversations=%d", backend.name, size, c.spread), func(b *testing.B) {
				s := open(b, backend.migrated(b))
				var published []contract.OutboxPosition
				n := 0
				for b.Loop() {
					batch := make([]contract.Message, size)
					for i := range batch {
						n++
						batch[i] = named(message(contract.UserID(i%50+1), contract.RoomConversation(contract.RoomID(i%c.spread+1))), fmt.Sprint(n))
					}
					results, err := s.Commit(b.Context(), batch, published)
					if err != nil {
						b.Fatal(err)
					}
					published = published[:0]
					for _, r := range results {
						published = append(published, r.Outbox)
					}
				}
				b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "messages/s")
			})
		}
	}
}
