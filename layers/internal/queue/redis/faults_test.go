package redis_test

import (
	"bytes"
	"context"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"gochat/layers/internal/embedded"
	"gochat/layers/internal/queue"
	"gochat/layers/internal/queue/queuetest"
	"gochat/layers/internal/queue/redis"
	"gochat/layers/internal/testdeps"
	"gochat/observability"
)

// start is a queue on a real Redis, and a client beside it.
func start(t *testing.T) (*redis.Queue, *goredis.Client, *testdeps.RedisServer) {
	server := testdeps.Redis(t, "--appendonly", "yes", "--appendfsync", "always")
	q := open(t, config(server.Addr()), queuetest.NewOwners(), observability.Discard())
	t.Cleanup(func() { _ = q.Close() })
	return q, connect(t, server.Addr()), server
}

func TestWipedRedisIsInitialisedAgain(t *testing.T) {
	for _, c := range []struct {
		name  string
		start func(t *testing.T) (addr, password string)
	}{
		{"server", func(t *testing.T) (string, string) { return testdeps.Redis(t).Addr(), "" }},
		{"embedded", func(t *testing.T) (string, string) {
			r, err := embedded.StartRedis()
			must(t, err)
			t.Cleanup(r.Close)
			return r.Addr(), r.Password()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := config()
			addr, password := c.start(t)
			cfg.Addrs, cfg.Password = []string{addr}, password
			beside := goredis.NewClient(&goredis.Options{Addr: addr, Password: password})
			t.Cleanup(func() { _ = beside.Close() })
			q := open(t, cfg, queuetest.NewOwners(), observability.Discard())
			t.Cleanup(func() { _ = q.Close() })
			r := &received{}
			consume(t, q, r.Handle)
			want := []string{"before"}
			must(t, q.Publish(t.Context(), items("k", "before")))
			r.Wait(t, want...)
			for _, body := range []string{"after one", "after two"} {
				must(t, beside.FlushAll(t.Context()).Err())
				must(t, beside.ScriptFlush(t.Context()).Err())
				must(t, q.Publish(t.Context(), items("k", body)))
				want = append(want, body)
				r.Wait(t, want...)
			}
			must(t, q.Ping(t.Context()))
		})
	}
}

// A process that was paused may read once more after its ownership has passed on.
func TestItemsReadAwayByAnEarlierOwnerAreFound(t *testing.T) {
	q, beside, _ := start(t)
	r := &received{}
	entered, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	consume(t, q, func(ctx context.Context, items []queue.Item) error {
		once.Do(func() { close(entered); <-release })
		return r.Handle(ctx, items)
	})
	must(t, q.Publish(t.Context(), items("k", "1")))
	<-entered
	must(t, q.Publish(t.Context(), items("k", "2")))
	must(t, beside.XReadGroup(t.Context(), &goredis.XReadGroupArgs{
		Group: "task", Consumer: "owner", Streams: []string{stream("k"), ">"}, Block: -1,
	}).Err())
	must(t, q.Publish(t.Context(), items("k", "3")))
	close(release)
	r.Wait(t, "1", "2", "3")
}

func TestEntriesThatAreNotDeliveriesAreRemoved(t *testing.T) {
	q, beside, _ := start(t)
	s := stream("k")
	add := func(values ...string) string {
		id, err := beside.XAdd(t.Context(), &goredis.XAddArgs{Stream: s, Values: values}).Result()
		must(t, err)
		return id
	}
	must(t, beside.XGroupCreateMkStream(t.Context(), s, "task", "0").Err())
	must(t, q.Publish(t.Context(), items("k", "1")))
	add("unknown", "field")
	add("key", "k", "headers", "%zz", "body", "b")
	deleted := add("key", "k", "headers", "", "body", "deleted while pending")
	must(t, beside.XReadGroup(t.Context(), &goredis.XReadGroupArgs{
		Group: "task", Consumer: "owner", Streams: []string{s, ">"}, Block: -1,
	}).Err())
	must(t, beside.XDel(t.Context(), s, deleted).Err())
	must(t, q.Publish(t.Context(), items("k", "2")))

	r := &received{}
	consume(t, q, r.Handle)
	r.Wait(t, "1", "2")
	eventually(t, "nothing is left", func() bool {
		pending, err := beside.XPending(t.Context(), s, "task").Result()
		return err == nil && pending.Count == 0 && beside.XLen(t.Context(), s).Val() == 0
	})
}

// What a handler has done while Redis was away is acknowledged afterwards, not handed over again.
func TestAcknowledgementsOutliveAnAbsence(t *testing.T) {
	q, beside, server := start(t)
	r := &received{}
	entered, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	consume(t, q, func(ctx context.Context, items []queue.Item) error {
		once.Do(func() { close(entered); <-release })
		return r.Handle(ctx, items)
	})
	must(t, q.Publish(t.Context(), items("k", "1", "2")))
	<-entered
	server.Kill()
	close(release)
	eventually(t, "the handler has returned and the acknowledgement failed", func() bool {
		return len(r.Bodies()) > 0 && q.Ping(t.Context()) != nil
	})
	server.Start()
	eventually(t, "they are acknowledged", func() bool { return beside.XLen(t.Context(), stream("k")).Val() == 0 })
	eventually(t, "publishing works", func() bool { return q.Publish(t.Context(), items("k", "3")) == nil })
	r.Wait(t, "1", "2", "3")
	if got := r.Bodies(); len(got) != 3 {
		t.Errorf("got %q, want each once", got)
	}
}

// A host that hangs keeps connections open and answers nothing.
func TestHungRedis(t *testing.T) {
	q, _, server := start(t)
	r := &received{}
	stop := consume(t, q, r.Handle)
	must(t, q.Publish(t.Context(), items("k", "1")))
	r.Wait(t, "1")
	server.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := q.Publish(ctx, items("k", "2")); err == nil {
		t.Error("publishing to a hung Redis succeeded")
	}
	if err := q.Ping(ctx); err == nil {
		t.Error("a hung Redis answers Ping")
	}
	stop() // returns though no read is answered
	server.Resume()
	consume(t, q, r.Handle)
	eventually(t, "publishing works", func() bool { return q.Publish(t.Context(), items("k", "2", "3")) == nil })
	r.Wait(t, "1", "2", "3")
}

// Had the client repeated the read whose reply was lost, "2" would come before "1".
func TestLostReplyOfARead(t *testing.T) {
	q, _, server := start(t)
	var tripped atomic.Bool
	addr := proxy(t, server.Addr(), func(reply []byte) bool {
		if !bytes.Contains(reply, []byte("cut here")) || !tripped.CompareAndSwap(false, true) {
			return true
		}
		must(t, q.Publish(context.Background(), items("k", "2")))
		return false
	})
	behind := open(t, config(addr), queuetest.NewOwners(), observability.Discard())
	t.Cleanup(func() { _ = behind.Close() })
	r := &received{}
	consume(t, behind, r.Handle)
	eventually(t, "the partition is read", func() bool {
		_, err := connect(t, server.Addr()).XPending(t.Context(), stream("k"), "task").Result()
		return err == nil
	})
	must(t, q.Publish(t.Context(), items("k", "cut here")))
	r.Wait(t, "cut here", "2")
	if !tripped.Load() {
		t.Error("no reply was lost")
	}
	if got := r.Items()[0].Attempt; got < 2 {
		t.Errorf("attempt is %d, want more than 1 after a lost reply", got)
	}
}

// proxy forwards to addr. A reply that pass refuses ends its connection instead.
func proxy(t *testing.T, addr string, pass func(reply []byte) bool) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	forward := func(from, to net.Conn, pass func([]byte) bool) {
		buf := make([]byte, 64<<10)
		for {
			n, err := from.Read(buf)
			if err == nil && pass(buf[:n]) {
				_, err = to.Write(buf[:n])
			} else if err == nil {
				err = net.ErrClosed
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
			server, err := net.Dial("tcp", addr)
			if err != nil {
				_ = client.Close()
				continue
			}
			mu.Lock()
			conns = append(conns, client, server)
			mu.Unlock()
			wg.Go(func() { forward(client, server, func([]byte) bool { return true }) })
			wg.Go(func() { forward(server, client, pass) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().String()
}

func TestPingNamesAPartitionThatCannotBeRead(t *testing.T) {
	q, beside, _ := start(t)
	r := &received{}
	must(t, beside.Set(t.Context(), stream("k"), "not a stream", 0).Err())
	consume(t, q, r.Handle)
	eventually(t, "Ping fails", func() bool { return q.Ping(t.Context()) != nil })
	if err := q.Publish(t.Context(), items("k", "1")); err == nil {
		t.Error("publishing to what is not a stream succeeded")
	}
	must(t, beside.Del(t.Context(), stream("k")).Err())
	eventually(t, "Ping succeeds", func() bool { return q.Ping(t.Context()) == nil })
	must(t, q.Publish(t.Context(), items("k", "1")))
	r.Wait(t, "1")
}

func TestItemsKnowWhenTheyWereEnqueued(t *testing.T) {
	q, _, _ := start(t)
	before := time.Now().Truncate(time.Millisecond)
	must(t, q.Publish(t.Context(), items("k", "1")))
	after := time.Now()
	r := &received{}
	consume(t, q, r.Handle)
	r.Wait(t, "1")
	if got := r.Items()[0].EnqueuedAt; got.Before(before) || got.After(after) {
		t.Errorf("enqueued at %s, want between %s and %s", got, before, after)
	}
}

// The names are what operators and other versions rely on.
func TestStreamLayout(t *testing.T) {
	q, beside, _ := start(t)
	item := queue.Item{Key: "room:1", Headers: map[string]string{"traceparent": "00-a-b-01"}, Body: []byte("b")}
	must(t, q.Publish(t.Context(), []queue.Item{item}))
	entries, err := beside.Do(t.Context(), "xrange", "gochat:deliveries:{3}", "-", "+").Slice()
	must(t, err)
	if len(entries) != 1 {
		t.Fatalf("%d entries in partition 3, want 1", len(entries))
	}
	want := []any{"key", "room:1", "headers", "traceparent=00-a-b-01", "body", "b"}
	if got := entries[0].([]any)[1].([]any); !slices.Equal(got, want) {
		t.Errorf("entry %q, want %q", got, want)
	}
}
