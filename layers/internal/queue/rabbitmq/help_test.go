package rabbitmq_test

import (
	"fmt"
	"net"
	"sync"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"gochat/layers/internal/queue"
	"gochat/layers/internal/queue/queuetest"
	"gochat/layers/internal/queue/rabbitmq"
	"gochat/layers/internal/testwait"
)

type received = queuetest.Received

var (
	must       = queuetest.Must
	items      = queuetest.Items
	consume    = queuetest.Consume
	eventually = testwait.Eventually
)

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

// numbers are the decimal numbers from first to last.
func numbers(first, last int) (all []string) {
	for i := first; i <= last; i++ {
		all = append(all, fmt.Sprint(i))
	}
	return all
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
