// Package task takes deliveries out of the queue and brings each to the connect nodes that hold its receivers.
//
// # Order
//
// The queue hands over one partition's items in order, and the next ones only when these are done. What is bound
// for one node goes through that node's sender, which has one push in flight: it carries all that gathered, from
// every partition, while the last one was. So a conversation's order is kept on its way to every node.
//
// # What may be lost
//
// An item is acknowledged when every node has answered its push, or has died, or could not be reached for
// Config.PushWithin. The last leaves people on a node that lives but was cut off without the message: they find it
// when they resume. A delivery whose form this process does not know is one that the queue sets aside.
package task

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"gochat/layers/internal/contract"
	"gochat/observability"
)

// Config is how the layer behaves.
type Config struct {
	Timeout    time.Duration `koanf:"timeout" doc:"deadline of one push to one node"`
	PushWithin time.Duration `koanf:"push_within" doc:"how long a node that does not answer is tried again before it is passed over"`
}

// Defaults are the values of a Config that is not told otherwise.
func Defaults() Config { return Config{Timeout: 3 * time.Second, PushWithin: 3 * time.Second} }

// Validate reports what may not be.
func (c Config) Validate() error {
	if c.Timeout < 100*time.Millisecond {
		return fmt.Errorf("timeout: %v: want 100ms or more", c.Timeout)
	}
	if c.PushWithin < 0 {
		return fmt.Errorf("push_within: %v: want 0s or more", c.PushWithin)
	}
	return nil
}

// Queue is the queue's exit.
type Queue interface {
	Consume(ctx context.Context, h contract.Handler) error
}

// Routes tells where rooms and users are.
type Routes interface {
	Resolve(ctx context.Context, rooms []contract.RoomID, users []contract.UserID) (contract.Routes, error)
}

// Connects are the connect nodes. Push is NotFound if that life of the node has ended.
type Connects interface {
	Push(ctx context.Context, node contract.NodeRef, r *contract.PushRequest) (*contract.PushReply, error)
}

// Task is the layer.
type Task struct {
	cfg      Config
	queue    Queue
	routes   Routes
	connects Connects
	tel      observability.Telemetry
	m        *metrics

	senders sync.WaitGroup
	mu      sync.Mutex
	byNode  map[contract.NodeRef]*sender
}

type metrics struct {
	consumed   prometheus.Counter
	deliveries *prometheus.CounterVec
	pushes     *prometheus.CounterVec
	batch      prometheus.Histogram
	nodes      prometheus.Histogram
	queueDelay prometheus.Histogram
}

// New builds the layer.
func New(cfg Config, queue Queue, routes Routes, connects Connects, tel observability.Telemetry) *Task {
	with := promauto.With(tel.Metrics)
	return &Task{
		cfg: cfg, queue: queue, routes: routes, connects: connects, tel: tel,
		byNode: make(map[contract.NodeRef]*sender),
		m: &metrics{
			consumed:  with.NewCounter(prometheus.CounterOpts{Name: "gochat_messages_consumed_total", Help: "Messages taken from the queue; one handed over again counts again."}),
			deliveries: with.NewCounterVec(prometheus.CounterOpts{
				Name: "gochat_deliveries_total", Help: "Receivers of messages, by what became of them; offline counts addressees without a connection."}, []string{"outcome"}),
			pushes: with.NewCounterVec(prometheus.CounterOpts{
				Name: "gochat_pushes_total", Help: "Pushes to nodes, by result."}, []string{"result"}),
			batch: with.NewHistogram(prometheus.HistogramOpts{
				Name: "gochat_push_batch_deliveries", Help: "Deliveries in one push.", Buckets: []float64{1, 2, 5, 10, 20, 50, 100, 200, 500}}),
			nodes: with.NewHistogram(prometheus.HistogramOpts{
				Name: "gochat_fanout_nodes", Help: "Nodes that one message is pushed to.", Buckets: []float64{0, 1, 2, 3, 5, 10, 20, 50, 100}}),
			queueDelay: with.NewHistogram(prometheus.HistogramOpts{
				Name: "gochat_queue_delay_seconds", Help: "From acceptance to being taken from the queue.",
				Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5, 30}}),
		},
	}
}

// Run consumes until ctx ends and what was handed over is done.
func (t *Task) Run(ctx context.Context) error {
	err := t.queue.Consume(ctx, t.handle)
	t.senders.Wait()
	return err
}

// handle brings items to their nodes. An error means that nothing is known of where they should go.
func (t *Task) handle(ctx context.Context, items []contract.Item) error {
	deliveries := make([]contract.Delivery, 0, len(items))
	for i := range items {
		var d contract.Delivery
		if err := d.Decode(items[i].Body); err != nil {
			return &contract.ItemError{Index: i, Err: err}
		}
		d.Traceparent = items[i].Headers[contract.HeaderTraceparent]
		if d.Seq > 0 {
			t.m.consumed.Inc()
			t.m.queueDelay.Observe(time.Since(d.AcceptedAt).Seconds())
		}
		deliveries = append(deliveries, d)
	}
	if len(deliveries) == 0 {
		return nil
	}
	routes, err := t.resolve(ctx, deliveries)
	if err != nil {
		return err
	}
	parcels := make(map[contract.NodeRef]*parcel)
	for i := range deliveries {
		t.address(&deliveries[i], routes, parcels)
	}
	for node, p := range parcels {
		t.send(node, p)
	}
	for node, p := range parcels {
		select {
		case <-p.done:
			t.account(ctx, node, p)
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", node, ctx.Err())
		}
	}
	return nil
}

func (t *Task) resolve(ctx context.Context, deliveries []contract.Delivery) (contract.Routes, error) {
	rooms := make(map[contract.RoomID]struct{})
	users := make(map[contract.UserID]struct{})
	var roomIDs []contract.RoomID
	var userIDs []contract.UserID
	for i := range deliveries {
		if room := deliveries[i].Room; room != 0 {
			if _, known := rooms[room]; !known {
				rooms[room] = struct{}{}
				roomIDs = append(roomIDs, room)
			}
			continue
		}
		for _, user := range deliveries[i].Users {
			if _, known := users[user]; !known {
				users[user] = struct{}{}
				userIDs = append(userIDs, user)
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, t.cfg.Timeout)
	defer cancel()
	routes, err := t.routes.Resolve(ctx, roomIDs, userIDs)
	if err != nil {
		return contract.Routes{}, fmt.Errorf("resolve routes: %w", err)
	}
	return routes, nil
}

// address puts the delivery into the parcel of each node that holds a receiver.
func (t *Task) address(d *contract.Delivery, routes contract.Routes, parcels map[contract.NodeRef]*parcel) {
	add := func(node contract.NodeRef, d contract.Delivery) {
		p := parcels[node]
		if p == nil {
			p = &parcel{done: make(chan struct{})}
			parcels[node] = p
		}
		p.deliveries = append(p.deliveries, d)
	}
	if d.Room != 0 {
		nodes := routes.Rooms[d.Room]
		for _, node := range nodes {
			add(node, *d)
		}
		if d.Seq > 0 {
			t.m.nodes.Observe(float64(len(nodes)))
		}
		return
	}
	perNode := make(map[contract.NodeRef][]contract.UserID)
	for i, user := range d.Users {
		nodes := routes.Users[user]
		if len(nodes) == 0 && d.Seq > 0 && i == 0 { // the addressee; the sender's other connections are a courtesy
			t.m.deliveries.WithLabelValues("offline").Inc()
		}
		for _, node := range nodes {
			perNode[node] = append(perNode[node], user)
		}
	}
	for node, users := range perNode {
		forNode := *d
		forNode.Users = users
		add(node, forNode)
	}
	if d.Seq > 0 {
		t.m.nodes.Observe(float64(len(perNode)))
	}
}

// account counts what became of a parcel.
func (t *Task) account(ctx context.Context, node contract.NodeRef, p *parcel) {
	if p.err != nil {
		if contract.CodeOf(p.err) != contract.NotFound { // a dead node's people are gone, and its routes soon
			t.tel.Log.WarnContext(ctx, "deliveries not brought to a node", "node", node.String(), "deliveries", len(p.deliveries), "err", p.err)
		}
		for i := range p.deliveries {
			if p.deliveries[i].Seq > 0 {
				t.m.deliveries.WithLabelValues("error").Inc()
			}
		}
		return
	}
	var sum contract.PushResult
	for i, r := range p.results {
		if p.deliveries[i].Seq > 0 {
			sum.Written += r.Written
			sum.Queued += r.Queued
			sum.Slow += r.Slow
			sum.Gone += r.Gone
		}
	}
	t.m.deliveries.WithLabelValues("written").Add(float64(sum.Written + sum.Queued))
	t.m.deliveries.WithLabelValues("slow").Add(float64(sum.Slow))
	t.m.deliveries.WithLabelValues("gone").Add(float64(sum.Gone))
}

// errShort means that a node answered less than it was asked.
var errShort = errors.New("node answered for fewer deliveries than it was given")
