package task

import (
	"context"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/queue/queuetest"
	queueredis "gochat/layers/internal/queue/redis"
	"gochat/layers/internal/record"
	"gochat/layers/internal/testdeps"
	"gochat/layers/internal/testwait"
	"gochat/observability"
)

const patience = testwait.Patience

var eventually = testwait.Eventually

var (
	nodeA = contract.NodeRef{ID: "connect-1", Epoch: 10}
	nodeB = contract.NodeRef{ID: "connect-2", Epoch: 20}
)

// world is what a Task works with: a real queue, and routes and nodes that the test scripts.
type world struct {
	t        *testing.T
	queue    *queueredis.Queue
	registry *prometheus.Registry
	task     *Task
	records  *record.Task
	stop     func()

	mu     sync.Mutex
	routes contract.Routes
	lost   error // of Resolve
	// answer, if set, decides about a push; nil is every delivery written once.
	answer func(contract.NodeRef, *contract.PushRequest) (*contract.PushReply, error)
	got    map[contract.NodeRef][]contract.Delivery // what nodes have answered for
	pushes map[contract.NodeRef]int
	flying map[contract.NodeRef]int
}

const partitions = 4

func newWorld(t *testing.T, change ...func(*Config)) *world {
	t.Helper()
	return drainingWorld(t, patience, change...)
}

// drainingWorld has a queue that gives handlers so long when consuming ends.
func drainingWorld(t *testing.T, drain time.Duration, change ...func(*Config)) *world {
	t.Helper()
	cfg := Defaults()
	cfg.PushWithin = 300 * time.Millisecond
	for _, f := range change {
		f(&cfg)
	}
	w := &world{t: t, registry: prometheus.NewRegistry(),
		routes: contract.Routes{Rooms: make(map[contract.RoomID][]contract.NodeRef), Users: make(map[contract.UserID][]contract.NodeRef)},
		got:    make(map[contract.NodeRef][]contract.Delivery), pushes: make(map[contract.NodeRef]int), flying: make(map[contract.NodeRef]int)}
	w.records = record.NewTask(record.Defaults(), observability.Discard())
	queueConfig := queueredis.DefaultConfig()
	queueConfig.Addrs, queueConfig.Partitions = []string{testdeps.Redis(t).Addr()}, partitions
	queueConfig.Drain = drain
	var err error
	if w.queue, err = queueredis.New(queueConfig, queuetest.NewOwners(), observability.Discard()); err != nil {
		t.Fatal(err)
	}
	tel := observability.Discard()
	tel.Metrics = w.registry
	w.task = New(cfg, w.queue, w, w, w.records, tel)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.task.Run(ctx) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := testwait.Receive(t, "the task ends", done); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(func() { w.stop(); _ = w.queue.Close() })
	return w
}

// room and user set where receivers are.
func (w *world) room(id contract.RoomID, nodes ...contract.NodeRef) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.routes.Rooms[id] = nodes
}

func (w *world) user(id contract.UserID, nodes ...contract.NodeRef) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.routes.Users[id] = nodes
}

func (w *world) Resolve(context.Context, []contract.RoomID, []contract.UserID) (contract.Routes, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return contract.Routes{Rooms: maps.Clone(w.routes.Rooms), Users: maps.Clone(w.routes.Users)}, w.lost
}

func (w *world) Push(_ context.Context, node contract.NodeRef, r *contract.PushRequest) (*contract.PushReply, error) {
	w.mu.Lock()
	if len(r.Deliveries) > 0 { // else it is asked whether it answers
		w.pushes[node]++
	}
	w.flying[node]++
	if w.flying[node] > 1 {
		w.t.Errorf("%d pushes to %s at once", w.flying[node], node)
	}
	answer := w.answer
	w.mu.Unlock()
	reply := &contract.PushReply{Results: make([]contract.PushResult, len(r.Deliveries))}
	for i := range reply.Results {
		reply.Results[i].Written = 1
	}
	var err error
	if answer != nil {
		var given *contract.PushReply
		if given, err = answer(node, r); given != nil {
			reply = given
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.flying[node]--
	if err != nil {
		return nil, err
	}
	w.got[node] = append(w.got[node], r.Deliveries...)
	return reply, nil
}

// script sets how nodes answer from now on.
func (w *world) script(answer func(contract.NodeRef, *contract.PushRequest) (*contract.PushReply, error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answer = answer
}

func (w *world) received(node contract.NodeRef) []contract.Delivery {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.got[node])
}

func (w *world) pushed(node contract.NodeRef) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pushes[node]
}

func (w *world) publish(deliveries ...contract.Delivery) {
	w.t.Helper()
	items := make([]contract.Item, len(deliveries))
	for i, d := range deliveries {
		items[i] = contract.Item{Key: string(d.Conversation), Body: d.Append(nil)}
		if d.Traceparent != "" {
			items[i].Headers = map[string]string{contract.HeaderTraceparent: d.Traceparent}
		}
	}
	if err := w.queue.Publish(w.t.Context(), items); err != nil {
		w.t.Fatal(err)
	}
}

// toRoom is message seq of a room.
func toRoom(room contract.RoomID, seq int64) contract.Delivery {
	return contract.Delivery{Conversation: contract.RoomConversation(room), Seq: seq, Message: contract.MessageID(int64(room)*1_000_000 + seq),
		Room: room, AcceptedAt: time.Now(), Frame: []byte("{}")}
}

// toUser is message seq of users 1 and 2, from the first to the second.
func toUser(seq int64) contract.Delivery {
	return contract.Delivery{Conversation: "dm:1:2", Seq: seq, Message: contract.MessageID(seq), Users: []contract.UserID{2, 1},
		AcceptedAt: time.Now(), Frame: []byte("{}")}
}

// count is a counter's value, of all labels that have the value given, if one is.
func (w *world) count(name string, label ...string) int {
	w.t.Helper()
	families, err := w.registry.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			counts := len(label) == 0
			for _, l := range m.GetLabel() {
				counts = counts || l.GetValue() == label[0]
			}
			if counts {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return int(sum)
}

// depth is how many items the queue still holds.
func (w *world) depth() int64 {
	w.t.Helper()
	stats, err := w.queue.Stats(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	var sum int64
	for _, p := range stats.Partitions {
		sum += p.Depth
	}
	return sum
}
