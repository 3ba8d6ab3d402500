package rabbitmq_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"gochat/layers/internal/queue"
	"gochat/layers/internal/queue/rabbitmq"
)

const patience = 60 * time.Second

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// connect is a channel beside the queue, to look at what it does and to interfere with it.
func (b *broker) connect(t testing.TB) *amqp.Channel {
	t.Helper()
	conn, err := amqp.Dial("amqp://guest:guest@" + b.Addr() + "/")
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	ch, err := conn.Channel()
	must(t, err)
	return ch
}

func name(cfg rabbitmq.Config, key string) string {
	return fmt.Sprintf("%s.%d", cfg.Prefix, queue.Partition(key, cfg.Partitions))
}

// clean deletes all queues of a test.
func (b *broker) clean(t testing.TB, cfg rabbitmq.Config) {
	ch := b.connect(t)
	for p := range cfg.Partitions {
		for _, name := range []string{fmt.Sprintf("%s.%d", cfg.Prefix, p), fmt.Sprintf("%s.%d.aside", cfg.Prefix, p)} {
			if _, err := ch.QueueDelete(name, false, false, false); err != nil {
				t.Errorf("delete queue %s: %v", name, err)
			}
		}
	}
}

func items(key string, bodies ...string) []queue.Item {
	var all []queue.Item
	for _, b := range bodies {
		all = append(all, queue.Item{Key: key, Body: []byte(b)})
	}
	return all
}

// numbers are the decimal numbers from first to last.
func numbers(first, last int) (all []string) {
	for i := first; i <= last; i++ {
		all = append(all, fmt.Sprint(i))
	}
	return all
}

// consume runs until the end of the test, or until stop is called, which waits for the end.
func consume(t *testing.T, q queue.Queue, h queue.Handler) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- q.Consume(ctx, h) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Consume: %v", err)
			}
		case <-time.After(patience):
			t.Errorf("Consume has not returned within %s", patience)
		}
	})
	t.Cleanup(stop)
	return stop
}

// received keeps what handlers have acknowledged.
type received struct {
	mu    sync.Mutex
	items []queue.Item
}

func (r *received) handle(_ context.Context, items []queue.Item) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.items = append(r.items, items...)
	return nil
}

// distinct are the bodies in the order in which each came first.
func (r *received) distinct() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := make(map[string]bool)
	var all []string
	for _, it := range r.items {
		if body := string(it.Body); !seen[body] {
			seen[body] = true
			all = append(all, body)
		}
	}
	return all
}

// wait ends the test unless exactly want has come, in this order, items that come again counted once.
func (r *received) wait(t *testing.T, want ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d items arrive", len(want)), func() bool { return len(r.distinct()) >= len(want) })
	if got := r.distinct(); !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
}

// hole is a proxy to the broker that can swallow everything without closing a connection, as a host that is cut off.
type hole struct {
	addr string

	mu    sync.Mutex
	open  bool
	conns []net.Conn
}

func dig(t *testing.T, to string) *hole {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	h := &hole{addr: l.Addr().String()}
	var wg sync.WaitGroup
	forward := func(from, to net.Conn) {
		buf := make([]byte, 64<<10)
		for {
			n, err := from.Read(buf)
			h.mu.Lock()
			swallow := h.open
			h.mu.Unlock()
			if err == nil && !swallow {
				_, err = to.Write(buf[:n])
			}
			if err != nil {
				_, _ = from.Close(), to.Close()
				return
			}
		}
	}
	wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to)
			if err != nil {
				_ = client.Close()
				continue
			}
			h.mu.Lock()
			h.conns = append(h.conns, client, server)
			h.mu.Unlock()
			wg.Go(func() { forward(client, server) })
			wg.Go(func() { forward(server, client) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		h.mu.Lock()
		for _, c := range h.conns {
			_ = c.Close()
		}
		h.mu.Unlock()
		wg.Wait()
	})
	return h
}

func (h *hole) swallow() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open = true
}
