package connect

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"gochat/layers/internal/contract"
)

// BenchmarkFanout pushes messages of some hundred bytes to a room of 1,000 loopback sockets, whose other ends are read
// in this process. A delivery is one message for one connection.
func BenchmarkFanout(b *testing.B) { fanOut(b, tcp) }

// BenchmarkFanoutWebSocket is BenchmarkFanout to websockets that did not agree to compression.
func BenchmarkFanoutWebSocket(b *testing.B) { fanOut(b, webSocket) }

// BenchmarkFanoutDeflated is BenchmarkFanout to websockets that agreed to compression. They read what comes, and do not inflate it.
func BenchmarkFanoutDeflated(b *testing.B) { fanOut(b, deflated) }

func fanOut(b *testing.B, tr transport) {
	const members = 1000
	n := startNode(b, obliging(), func(c *Connect) { c.cfg.QueueBytes = 64 << 20 })
	var reading sync.WaitGroup
	b.Cleanup(reading.Wait)
	var read atomic.Int64 // bytes
	for i := range members {
		p := connect(b, n, tr)
		p.send(b, fmt.Sprintf(`{"op":6,"authToken":%q,"roomId":1}`, token(contract.UserID(i+1), 1)))
		reading.Go(func() { // until it is closed
			for buf := make([]byte, 32<<10); ; {
				got, err := p.conn.Read(buf)
				if read.Add(int64(got)); err != nil {
					return
				}
			}
		})
	}
	eventually(b, "everybody is in the room", func() bool {
		_, rooms := n.present()
		return len(rooms) == members
	})
	for _, size := range []int{1, 16} {
		b.Run(fmt.Sprintf("messages=%d", size), func(b *testing.B) {
			var batch []contract.Delivery
			for range size {
				batch = append(batch, note("room:1", 0, strings.Repeat("m", 200)))
			}
			delivered, written, readBefore := 0, 0, read.Load()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for b.Loop() {
				got := n.push(b, batch...)
				delivered, written = delivered+got.Receivers(), written+got.Written
			}
			runtime.ReadMemStats(&after)
			if delivered < b.N*size*members {
				b.Fatalf("delivered %d, want %d", delivered, b.N*size*members)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(delivered), "ns/delivery")
			b.ReportMetric(float64(after.Mallocs-before.Mallocs)/float64(delivered), "allocs/delivery")
			b.ReportMetric(float64(written)/float64(delivered), "written/delivery")
			b.ReportMetric(float64(read.Load()-readBefore)/float64(delivered), "bytes/delivery")
		})
	}
}
