package connect

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

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
