package connect

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"gochat/layers/internal/contract"
)

// TestPartialRun has the kernel take a part of several frames that go together, at every place: each frame is counted once,
// as what became of it, and what was taken or waits comes whole and in order. The excepted one does not come.
func TestPartialRun(t *testing.T) {
	const number = 7
	for round := range 30 {
		ch, client := lonely(t)
		ch.number, ch.srv.cfg.QueueBytes = number, 256<<10
		p := &pusher{to: []*channel{ch}}
		var want []byte
		var sums [outcomes]int
		frames, left := 0, 0
		for push := range 6 {
			var all []work
			for i := range 1 + (round+push)%5 {
				d := &delivery{Delivery: &contract.Delivery{}, frame: newFrame(fmt.Appendf(nil, `{"n":%d,"fill":%q}`, frames, strings.Repeat("r", 700*round+i)))}
				if frames++; frames%9 == 0 {
					d.except = number
				}
				all = append(all, work{delivery: d})
			}
			var sum [outcomes]int
			p.push(all, &sum)
			for _, w := range all {
				total := 0
				for o := range outcomes {
					n := int(w.delivery.counts[o].Load())
					total += n
					sums[o] += n
				}
				switch {
				case w.delivery.except == number && total != 0, w.delivery.except != number && total != 1:
					t.Fatalf("a frame is counted %d times", total)
				case w.delivery.except == number:
					left++
				case w.delivery.counts[written].Load()+w.delivery.counts[queued].Load() == 1:
					want = append(want, w.delivery.frame[tcp]...)
				}
			}
		}
		go ch.closeWhenWritten()
		got, err := io.ReadAll(client)
		if err != nil && sums[slow] == 0 {
			t.Fatal(err)
		}
		if sums[slow] == 0 && !bytes.Equal(got, want) {
			t.Fatalf("round %d: got %d bytes, want the %d that were written or queued (%v)", round, len(got), len(want), sums)
		}
		if n := sums[written] + sums[queued] + sums[slow] + sums[gone]; n != frames-left {
			t.Errorf("%d ends of %d frames", n, frames-left)
		}
	}
}

// takers are channels whose descriptor takes all that is written, and costs as good as nothing: what is left is ours.
func takers(t testing.TB, n int) []*channel {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = null.Close() })
	c := &Connect{cfg: Defaults(), m: newMetrics(prometheus.NewRegistry(), 1)}
	all := make([]*channel, n)
	for i := range all {
		all[i] = &channel{srv: c, fd: int(null.Fd()), number: uint64(i + 1), transport: transport(i % 2)}
	}
	return all
}

// pushes is the work of so many messages to one room.
func pushes(n int) []work {
	all := make([]work, n)
	for i := range all {
		json := fmt.Appendf(nil, `{"op":3,"seq":%d,"msg":%q}`, i+1, strings.Repeat("m", 200))
		all[i].delivery = &delivery{Delivery: &contract.Delivery{Conversation: "room:1", Room: 1, Seq: int64(i + 1), Frame: json}, frame: newFrame(json)}
	}
	return all
}

// TestDeliveryAllocatesNothing: however many receive a push, and however many messages it has.
func TestDeliveryAllocatesNothing(t *testing.T) {
	for _, messages := range []int{1, 3, 16} {
		p, all := &pusher{to: takers(t, 100)}, pushes(messages)
		var sum [outcomes]int
		if n := testing.AllocsPerRun(20, func() { p.push(all, &sum) }); n != 0 {
			t.Errorf("%d messages for %d receivers: %v allocations, want none", messages, len(p.to), n)
		}
		if want := 21 * messages * len(p.to); sum[written] != want {
			t.Errorf("%d written, want %d: the test shows less than it should", sum[written], want)
		}
	}
}

// BenchmarkPush is what a delivery costs beside the write call, which goes to a descriptor that does nothing.
func BenchmarkPush(b *testing.B) {
	const members = 1000
	for _, messages := range []int{1, 16} {
		b.Run(fmt.Sprint("messages=", messages), func(b *testing.B) {
			p, all := &pusher{to: takers(b, members)}, pushes(messages)
			var sum [outcomes]int
			b.ReportAllocs()
			for b.Loop() {
				p.push(all, &sum)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(sum[written]), "ns/delivery")
		})
	}
}

// BenchmarkReceivers copies the members of a room out of a bucket.
func BenchmarkReceivers(b *testing.B) {
	bucket := soleBucket()
	for _, c := range takers(b, 1000) {
		c.who = &who{user: contract.UserID(c.number)}
		bucket.add(c)
		bucket.prepare(c, 1)
		bucket.join(c, 1)
	}
	w := &pushes(1)[0]
	var into []*channel
	b.ReportAllocs()
	for b.Loop() {
		into, _ = bucket.receivers(into[:0], w)
	}
	if len(into) != 1000 {
		b.Fatalf("%d members", len(into))
	}
}

// BenchmarkJoinLeave has a channel enter a room of 1,000 and leave it.
func BenchmarkJoinLeave(b *testing.B) {
	bucket, all := soleBucket(), takers(b, 1001)
	for _, c := range all {
		c.who = &who{user: contract.UserID(c.number)}
		bucket.add(c)
		bucket.prepare(c, 1)
		bucket.join(c, 1)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		c := all[i%len(all)]
		bucket.leave(c, 1)
		bucket.prepare(c, 1)
		bucket.join(c, 1)
	}
}
