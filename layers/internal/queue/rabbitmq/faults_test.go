package rabbitmq_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"gochat/layers/internal/queue"
	"gochat/layers/internal/queue/queuetest"
	"gochat/layers/internal/queue/rabbitmq"
)

// A broker that came back empty, or whose queues somebody has deleted, needs no restart.
func testDeletedQueues(t *testing.T, b *broker) {
	cfg := b.config(t)
	q := open(t, cfg, queuetest.NewOwners())
	r := &received{}
	consume(t, q, r.Handle)
	must(t, q.Publish(t.Context(), items("k", "before")))
	want := []string{"before"}
	r.Wait(t, want...)
	for _, body := range []string{"after"} {
		b.clean(t, cfg)
		eventually(t, "publishing works", func() bool { return q.Publish(t.Context(), items("k", body)) == nil })
		want = append(want, body)
		r.Wait(t, want...)
	}
	eventually(t, "the reader has its queues again", func() bool { return q.Ping(t.Context()) == nil })
}

// What has no queue is not held, whatever the broker confirms.
func testUnroutable(t *testing.T, b *broker) {
	cfg := b.config(t)
	q := open(t, cfg, nil)
	must(t, q.Publish(t.Context(), items("k", "before"))) // the queue is known to be there
	b.clean(t, cfg)
	if err := q.Publish(t.Context(), items("k", "1")); err == nil {
		t.Error("an item without a queue was accepted")
	}
	must(t, q.Publish(t.Context(), items("k", "1", "2")))
	r := &received{}
	consume(t, open(t, cfg, queuetest.NewOwners()), r.Handle)
	r.Wait(t, "1", "2")
}

// A publisher with another bound takes the queue as it is, and the broker keeps the queue's own.
func testFence(t *testing.T, b *broker) {
	cfg := b.config(t)
	b.clean(t, cfg)
	small := cfg
	small.MaxItems = 8 // the broker's own bound is then 11
	must(t, open(t, small, nil).Publish(t.Context(), items("k", numbers(1, 3)...)))
	q := open(t, cfg, nil)
	var full error
	next := 4
	for ; full == nil && next < 500; next++ {
		full = q.Publish(t.Context(), items("k", fmt.Sprint(next)))
	}
	if !errors.Is(full, queue.ErrFull) {
		t.Fatalf("publish beyond the queue's own bound: %v, want %v", full, queue.ErrFull)
	}
	stats, err := q.Stats(t.Context())
	must(t, err)
	held := stats.Partitions[queue.Partition("k", partitions)].Depth
	if held < 11 || held > 40 {
		t.Errorf("the queue holds %d, want about 11", held)
	}
	r := &received{}
	consume(t, open(t, cfg, queuetest.NewOwners()), r.Handle)
	r.Wait(t, numbers(1, int(held))...)
	eventually(t, "there is room again", func() bool { return q.Publish(t.Context(), items("k", "last")) == nil })
	r.Wait(t, append(numbers(1, int(held)), "last")...)
}

// Only one instance reads a partition, even if several own it, and it gives way when it can no longer be heard.
func testFencedReader(t *testing.T, b *broker) {
	cfg := b.config(t)
	cfg.Heartbeat = time.Second
	cut := dig(t, b.Addr())
	behind := cfg
	behind.URL = "amqp://guest:guest@" + cut.addr + "/"

	entered, release := make(chan struct{}), make(chan struct{})
	var enter, leave sync.Once
	defer leave.Do(func() { close(release) })
	must(t, open(t, cfg, nil).Publish(t.Context(), items("k", numbers(1, 40)...)))
	stop := consume(t, open(t, behind, queuetest.NewOwners()), func(context.Context, []queue.Item) error {
		enter.Do(func() { close(entered) })
		<-release
		return nil
	})
	<-entered
	r := &received{}
	second := open(t, cfg, queuetest.NewOwners())
	consume(t, second, r.Handle)
	publisher := open(t, cfg, nil)
	for _, n := range numbers(41, 80) { // until after the second has registered
		must(t, publisher.Publish(t.Context(), items("k", n)))
		time.Sleep(10 * time.Millisecond)
	}
	if got := r.Distinct(); len(got) > 0 { // the control: they arrive when the first reader is cut off
		t.Errorf("a second reader got %q while the first lives", got)
	}
	start := time.Now()
	cut.swallow()
	r.Wait(t, numbers(1, 80)...)
	t.Logf("passed on after %s with a heartbeat of %s", time.Since(start).Round(100*time.Millisecond), cfg.Heartbeat)
	if got := r.Items()[0].Attempt; got < 2 {
		t.Errorf("attempt of an item that another reader held is %d, want more than 1", got)
	}
	leave.Do(func() { close(release) })
	stop()
}

// Readers that die one after the other, each with all it may hold, leave everything in order.
func testManyDeaths(t *testing.T, b *broker) {
	const last = 1500 // more than what a reader holds
	cfg := b.config(t)
	must(t, open(t, cfg, nil).Publish(t.Context(), items("k", numbers(1, last)...)))
	beside := b.connect(t)
	for death := range 4 {
		dying := open(t, cfg, queuetest.NewOwners())
		entered, release := make(chan struct{}), make(chan struct{})
		var calls atomic.Int64
		stop := consume(t, dying, func(_ context.Context, items []queue.Item) error {
			if calls.Add(1) <= int64(death) { // each acknowledges some
				return nil
			}
			select {
			case <-entered:
			default:
				close(entered)
			}
			<-release
			return nil
		})
		<-entered
		eventually(t, "it holds all it may", func() bool {
			is, err := beside.QueueDeclarePassive(name(cfg, "k"), true, false, false, false, nil)
			return err == nil && is.Messages <= last-512
		})
		_ = dying.Close()
		close(release)
		stop()
	}
	r := &received{}
	consume(t, open(t, cfg, queuetest.NewOwners()), r.Handle)
	first := 1 + 32*(1+2+3) // what the dead have acknowledged: batches of 32
	eventually(t, "the rest arrives", func() bool {
		got := r.Distinct()
		return len(got) > 0 && got[len(got)-1] == fmt.Sprint(last)
	})
	got := r.Distinct()
	if begin := last - len(got) + 1; begin > first || !slices.Equal(got, numbers(begin, last)) {
		t.Errorf("%d items from %s on are not in order, or begin after %d", len(got), got[0], first)
	}
}

func testForeignMessages(t *testing.T, b *broker) {
	cfg := b.config(t)
	q := open(t, cfg, queuetest.NewOwners())
	beside := b.connect(t)
	must(t, q.Publish(t.Context(), items("k", "1")))
	for _, headers := range []amqp.Table{nil, {"key": int64(7)}, {"key": "k", "headers": "none"}, {"key": "k", "headers": amqp.Table{"n": int64(1)}}} {
		must(t, beside.Publish("", name(cfg, "k"), false, false, amqp.Publishing{Headers: headers, Body: []byte("foreign")}))
	}
	depth := func() int64 {
		stats, err := q.Stats(t.Context())
		must(t, err)
		return stats.Partitions[queue.Partition("k", partitions)].Depth
	}
	eventually(t, "they are there", func() bool { return depth() == 5 })
	must(t, q.Publish(t.Context(), items("k", "2")))
	r := &received{}
	consume(t, q, r.Handle)
	r.Wait(t, "1", "2")
	eventually(t, "nothing is left", func() bool { return depth() == 0 })
	aside, err := q.SetAside(t.Context(), 10)
	must(t, err)
	if len(aside) != 4 {
		t.Fatalf("%d messages set aside, want 4: %+v", len(aside), aside)
	}
	for _, a := range aside {
		if string(a.Body) != "foreign" || !strings.Contains(a.Reason, "no delivery") {
			t.Errorf("set aside %+v", a)
		}
	}
	if again, err := q.SetAside(t.Context(), 3); err != nil || len(again) != 3 {
		t.Errorf("a second look finds %d (%v), want the 3 asked for", len(again), err)
	}
}

// A host that hangs keeps connections open and answers nothing.
func testHungBroker(t *testing.T, b *broker) {
	cfg := b.config(t)
	q := open(t, cfg, queuetest.NewOwners())
	r := &received{}
	stop := consume(t, q, r.Handle)
	must(t, q.Publish(t.Context(), items("k", "1")))
	r.Wait(t, "1")
	b.Pause()
	start := time.Now()
	bounded := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	if err := q.Publish(bounded(), items("k", "2")); err == nil {
		t.Error("publishing to a hung broker succeeded")
	}
	if err := q.Ping(bounded()); err == nil {
		t.Error("a hung broker answers Ping")
	}
	if _, err := q.Stats(bounded()); err == nil {
		t.Error("a hung broker answers Stats")
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("three operations of 300ms took %s", took)
	}
	stop() // returns though nothing is answered
	b.Resume()
	consume(t, q, r.Handle)
	eventually(t, "publishing works", func() bool { return q.Publish(bounded(), items("k", "2", "3")) == nil })
	r.Wait(t, "1", "2", "3")
}

// A broker short of memory or disk takes no items and says so. What it holds is still read.
func testBlockedBroker(t *testing.T, b *broker) {
	cfg := b.config(t)
	q := open(t, cfg, queuetest.NewOwners())
	must(t, q.Publish(t.Context(), items("k", "1")))
	b.Ctl("set_vm_memory_high_watermark", "absolute", "1MB")
	blocked := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		return q.Publish(ctx, items("k", "2"))
	}
	eventually(t, "the broker takes nothing", func() bool { return blocked() != nil })
	if err := q.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "memory") {
		t.Errorf("Ping: %v, want that the broker is low on memory", err)
	}
	r := &received{}
	consume(t, q, r.Handle)
	start := time.Now()
	eventually(t, "what it holds arrives", func() bool { return len(r.Distinct()) > 0 })
	if took := time.Since(start); took > 4*time.Second { // on the connection that is blocked it would take more than 5
		t.Errorf("what it holds arrives after %s", took)
	}
	b.Ctl("set_vm_memory_high_watermark", "0.4")
	eventually(t, "it takes items again", func() bool { return blocked() == nil && q.Ping(t.Context()) == nil })
	r.Wait(t, "1", "2")
}

// The names and fields are what operators and other versions rely on.
func testLayout(t *testing.T, b *broker) {
	cfg := b.config(t)
	if got := rabbitmq.DefaultConfig().Prefix; got != "gochat.deliveries" {
		t.Errorf("queues begin with %q", got)
	}
	q := open(t, cfg, nil)
	before := time.Now().Truncate(time.Millisecond)
	must(t, q.Publish(t.Context(), []queue.Item{{Key: "room:1", Headers: map[string]string{"traceparent": "00-a-b-01"}, Body: []byte("b")}}))
	beside := b.connect(t)
	is, err := beside.QueueDeclare(cfg.Prefix+".3", true, false, false, false, amqp.Table{
		"x-queue-type": "quorum", "x-single-active-consumer": true, "x-delivery-limit": int64(1_000_000_000),
		"x-max-length": int64(bound*5/4 + 1), "x-overflow": "reject-publish",
	})
	must(t, err)
	if is.Messages != 1 {
		t.Fatalf("%d messages in partition 3, want 1", is.Messages)
	}
	arriving, err := beside.Consume(cfg.Prefix+".3", "", true, false, false, false, nil)
	must(t, err)
	m := <-arriving
	at, _ := m.Headers["enqueued"].(int64)
	if m.Headers["key"] != "room:1" || string(m.Body) != "b" || m.DeliveryMode != amqp.Persistent || at < before.UnixMilli() || at > time.Now().UnixMilli() {
		t.Errorf("message %+v", m)
	}
	if table, _ := m.Headers["headers"].(amqp.Table); len(table) != 1 || table["traceparent"] != "00-a-b-01" {
		t.Errorf("headers %v", m.Headers["headers"])
	}
}

// An item that no frame can hold is refused by itself: on the wire it would end the connection.
func testTooLong(t *testing.T, b *broker) {
	q := open(t, b.config(t), queuetest.NewOwners())
	must(t, q.Publish(t.Context(), items("k", "1")))
	long := strings.Repeat("x", 1<<20)
	for name, it := range map[string]queue.Item{
		"key":           {Key: long},
		"header":        {Key: "k", Headers: map[string]string{"a": long}},
		"header's name": {Key: "k", Headers: map[string]string{long[:300]: "v"}},
	} {
		if err := q.Publish(t.Context(), []queue.Item{it}); err == nil || !strings.Contains(err.Error(), "bytes") {
			t.Errorf("%s: %v, want that it is too long", name, err)
		}
	}
	must(t, q.Publish(t.Context(), items("k", long)))
	r := &received{}
	consume(t, q, r.Handle)
	r.Wait(t, "1", long)
}
