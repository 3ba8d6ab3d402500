package connect

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gochat/layers/connect/wire"
	"gochat/layers/internal/contract"
	"gochat/layers/internal/testclient"
)

// maskedFrame is a websocket frame of a client, with a mask of zero.
func maskedFrame(first byte, payload string) string {
	n := len(payload)
	return string([]byte{first, 0x80 | 127, 0, 0, 0, 0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n), 0, 0, 0, 0}) + payload
}

// TestCutAnywhere sends messages of all sizes over several connections at once, cut and glued at random, and for websockets
// in fragments with pings between them: each is acted on once, in order.
func TestCutAnywhere(t *testing.T) {
	const people, messages = 4, 150
	eachTransport(t, func(t *testing.T, tr transport) {
		var mu sync.Mutex
		got := make(map[contract.UserID][]string)
		logic := obliging()
		logic.send = func(_ context.Context, r *contract.SendRequest) (*contract.Receipt, error) {
			mu.Lock()
			defer mu.Unlock()
			got[r.From] = append(got[r.From], r.ClientID+" "+r.Text)
			return &contract.Receipt{}, nil
		}
		n := startNode(t, logic, nil)
		want := make(map[contract.UserID][]string)
		var sending sync.WaitGroup
		for user := contract.UserID(2); user < 2+people; user++ {
			p, _ := dialPeer(t, n, tr, user)
			random := rand.New(rand.NewPCG(1, uint64(user)))
			var stream bytes.Buffer
			for i := range messages {
				text := strings.Repeat(string(rune('a'+user)), 1+random.IntN([]int{20, 600, 5000, 16_000}[i%4]))
				want[user] = append(want[user], fmt.Sprint(i, " ", text))
				message := fmt.Sprintf(`{"op":3,"roomId":1,"clientId":"%d","msg":%q}`, i, text)
				if tr == tcp {
					stream.Write(testclient.Packet([]byte(message)))
				} else {
					writeInParts(&stream, random, message)
				}
			}
			go func() { _, _ = io.Copy(io.Discard, p.conn) }() // the answers, until the end: they must not fill the socket
			sending.Go(func() {
				for stream.Len() > 0 {
					if _, err := p.conn.Write(stream.Next(1 + random.IntN([]int{3, 700, 9000, 70_000}[random.IntN(4)]))); err != nil {
						t.Error(err)
						return
					}
					if random.IntN(3) == 0 {
						time.Sleep(time.Duration(random.IntN(500)) * time.Microsecond)
					}
				}
			})
		}
		sending.Wait()
		for user := range want {
			eventually(t, "all are acted on", func() bool { mu.Lock(); defer mu.Unlock(); return len(got[user]) >= messages })
			mu.Lock()
			for i := range want[user] {
				if got[user][i] != want[user][i] {
					t.Fatalf("user %d, message %d: got %.40s, want %.40s", user, i, got[user][i], want[user][i])
				}
			}
			mu.Unlock()
		}
	})
}

// writeInParts writes a message in up to four frames, with a ping after each but the last.
func writeInParts(to *bytes.Buffer, random *rand.Rand, message string) {
	first := byte(wire.OpcodeText)
	for left := random.IntN(4); left > 0; left-- {
		n := random.IntN(len(message) + 1)
		to.WriteString(maskedFrame(first, message[:n]))
		to.WriteString(maskedFrame(0x80|wire.OpcodePing, "between"))
		message, first = message[n:], wire.OpcodeContinuation
	}
	to.WriteString(maskedFrame(0x80|first, message))
}

// TestViolations ends whoever breaks RFC 6455 with 1002, and answers a close frame with its own code.
func TestViolations(t *testing.T) {
	n := startNode(t, obliging(), nil)
	text, more, last := byte(wire.OpcodeText), byte(wire.OpcodeContinuation), byte(0x80)
	for _, c := range []struct {
		name, send string
		want       int
	}{
		{"closes", maskedFrame(last|wire.OpcodeClose, "\x0f\xa0bye"), 4000},
		{"closes without a code", maskedFrame(last|wire.OpcodeClose, ""), 1000},
		{"closes with a code that may not be sent", maskedFrame(last|wire.OpcodeClose, "\x03\xee"), wire.CloseViolation},
		{"not masked", "\x81\x01x", wire.CloseViolation},
		{"a message within another", maskedFrame(text, "a") + maskedFrame(last|text, "b"), wire.CloseViolation},
		{"goes on with nothing", maskedFrame(last|more, "a"), wire.CloseViolation},
		{"compressed, which was not agreed upon", maskedFrame(last|text|0x40, "a"), wire.CloseViolation},
		{"binary in parts", maskedFrame(wire.OpcodeBinary, "a"), 1007},
		{"too large in parts", maskedFrame(text, strings.Repeat(" ", 40_000)) + maskedFrame(last|more, strings.Repeat(" ", 40_000)), 1009},
		{"not UTF-8 in parts", maskedFrame(text, "{\xc3") + maskedFrame(last|more, "(}"), 1007},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, _ := dialPeer(t, n, webSocket, 2)
			if _, err := p.conn.Write([]byte(c.send)); err != nil {
				t.Fatal(err)
			}
			var err error
			for err == nil {
				_, err = p.next()
			}
			if err != closed(c.want) {
				t.Errorf("got %v, want the close code %d", err, c.want)
			}
			_ = p.conn.Close()
			eventually(t, "gone", func() bool { return len(n.all()) == 0 })
		})
	}
}

// TestSplitCharacter has a character be cut by the end of a fragment.
func TestSplitCharacter(t *testing.T) {
	n := startNode(t, obliging(), nil)
	p, _ := dialPeer(t, n, webSocket, 2)
	if _, err := p.conn.Write([]byte(maskedFrame(wire.OpcodeText, "{\"op\":10,\"x\":\"\xc3") + maskedFrame(0x80, "\xa4\"}"))); err != nil {
		t.Fatal(err)
	}
	if f, err := p.next(); err != nil || f.Op() != int(wire.OpPong) {
		t.Errorf("got %v, %v, want a pong", f, err)
	}
}

// TestClaimedLengthHoldsNothing has many begin a message that they say is long: what they have sent is kept, and not more.
func TestClaimedLengthHoldsNothing(t *testing.T) {
	const connections, each = 200, 2 << 10
	n := startNode(t, obliging(), func(c *Connect) { c.cfg.AuthWithin = testclient.Patience })
	for tr, begin := range map[transport]string{
		webSocket: maskedFrame(0x81, strings.Repeat(" ", 60_000))[:100],
		tcp:       "v1\x7f\xff" + strings.Repeat(" ", 100),
	} {
		t.Run(tr.String(), func(t *testing.T) {
			var peers []*peer
			for i := range connections {
				p, _ := dialPeer(t, n, tr, contract.UserID(2+i))
				peers = append(peers, p)
			}
			before := heapInUse()
			for _, p := range peers {
				if _, err := p.conn.Write([]byte(begin)); err != nil {
					t.Fatal(err)
				}
			}
			eventually(t, "all have begun", func() bool {
				begun := 0
				for _, ch := range n.all() {
					if ch.parked.Load() && ch.begunAt.Load() != 0 {
						begun++
					}
				}
				return begun == connections
			})
			if grown := (heapInUse() - before) / connections; grown > each {
				t.Errorf("each holds %d bytes for the hundred it has sent, want at most %d", grown, each)
			}
			for _, p := range peers {
				_ = p.conn.Close()
			}
			eventually(t, "gone", func() bool { return len(n.all()) == 0 })
		})
	}
}

// TestExpiry ends waits in the order in which they began, each when its time is over and not long after, whenever they come.
func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const after = 5 * time.Second
		type end struct {
			number uint64
			at     time.Duration
		}
		start := time.Now()
		var ends []end
		var mu sync.Mutex
		begun := make(map[uint64]time.Time)
		e := newExpiry(func() time.Duration { return after }, func(number uint64, _ int64) {
			mu.Lock()
			defer mu.Unlock()
			if waited := time.Since(begun[number]); waited < after || waited > after+expirySlack+time.Microsecond {
				t.Errorf("%d waited %v, want %v", number, waited, after)
			}
			ends = append(ends, end{number, time.Since(start)})
		})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); e.run(ctx) }()
		var want int
		for _, pause := range []time.Duration{0, 0, time.Millisecond, time.Second, 20 * time.Second, 4 * time.Second, 0, time.Minute} {
			time.Sleep(pause)
			want++
			mu.Lock()
			begun[uint64(want)] = time.Now()
			mu.Unlock()
			e.add(&channel{number: uint64(want)})
		}
		time.Sleep(2 * after)
		stop()
		<-done
		for i, got := range ends {
			if got.number != uint64(i+1) {
				t.Errorf("got %v, want them in order", ends)
				break
			}
		}
		if len(ends) != want || e.waits != nil {
			t.Errorf("%d of %d have ended, %d are kept", len(ends), want, len(e.waits))
		}
	})
}
