package connect

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/testclient"
)

// BenchmarkFanout pushes messages of some hundred bytes to a room of 1,000 loopback sockets, whose other ends are read
// in this process. A delivery is one message for one connection.
func BenchmarkFanout(b *testing.B) {
	const members = 1000
	n := startNode(b, obliging(), func(c *Connect) { c.cfg.QueueBytes = 64 << 20 })
	var reading sync.WaitGroup
	b.Cleanup(reading.Wait)
	for i := range members {
		conn, err := net.Dial("tcp", n.TCPAddrs()[0])
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = conn.Close() })
		hello := fmt.Sprintf(`{"op":6,"authToken":%q,"roomId":1}`, token(contract.UserID(i+1), 1))
		if _, err := conn.Write(testclient.Packet([]byte(hello))); err != nil {
			b.Fatal(err)
		}
		reading.Go(func() { _, _ = io.Copy(io.Discard, conn) }) // until it is closed
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
			delivered, written := 0, 0
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
		})
	}
}
