// Package task takes deliveries out of the queue and brings each to the connect nodes that hold its receivers.
//
// # Order
//
// The queue hands over one partition's items in order, and the next ones only when these are done. What is bound
// for one node goes through that node's sender, which has one push in flight: it carries all that gathered, from
// every partition, while the last one was, and for a moment more if that wrote to many connections. So a conversation's
// order is kept on its way to every node, and what goes to the same connections goes by fewer writes.
//
// # Nodes that do not answer
//
// An item is acknowledged when every node has answered its push, or has died, or is late: has not answered within 250 ms.
// Nobody waits for a node that is late, until it has answered all that is bound for it: that is brought in order as it
// answers, and up to 5,000 deliveries may wait; what comes then is not acknowledged before there is room.
//
// A push that could not be done for Config.PushWithin, to a node that lives, is given up: what room messages the node missed
// it finds by itself, and direct ones are kept for it until it answers again, 5,000 at most. So it is with what was bound for
// a late node when this process is killed: the node finds it by comparing heads with logic's.
//
// Until then it is tried every second, so that nothing is kept of one that has died.
//
// A user whom no node has any more that had them is looked for once again, on every node, the same included: they may
// have come back to it. Who is on none then is offline. So it is with what was kept for a node that answers again.
//
// # The ledger
//
// A message is due to each connection of its room or of its users, as many as there are when it reaches their buckets;
// a direct message whose addressee has none is due to the addressee. Each of these ends in exactly one count, where the
// end is certain:
//
//	delivered   gochat_connect_deliveries_total  written, queued
//	dropped     gochat_connect_deliveries_total  slow, gone, lost
//	offline     gochat_deliveries_total          offline
//	dropped     gochat_deliveries_total          error
//
// Connect counts what became of a connection once, however often the message is pushed, whether the answer arrives, and
// whether a push or a repair brought it. Task counts what never reaches a connection, when the item is done: one that is
// handed over again is counted the last time.
//
// The other outcomes of gochat_deliveries_total are no ends. They are what nodes have answered, push by push: written
// (with queued), slow and gone, which connect has counted; had, which it had counted before; deferred, which it counts
// when it has fetched what is missing before it. The messages with which a room's node was passed over are deferred too:
// the node finds that it missed them.
//
// What is still under way is in no count: items in the queue, deferred ones, and those kept for a node. Error is what
// task gives up without knowing: a node that was passed over may have it, or find it, all the same. So it is with a user
// who has left a node that did not answer: what it wrote before it was passed over is brought, and counted, once more
// elsewhere. Counts of a process that is killed go with it, and an item whose acknowledgement was lost is offline twice.
//
// # Where a message is
//
// Records are told what becomes of each message here, in the words of the ledger: what a node was asked and has answered,
// who is offline, what is kept and given up, and whether the item was acknowledged. They decide nothing.
//
// # What may be lost
//
// Direct messages kept for such a node, if this process ends before it answers, or routes cannot be read when their
// users have left it: the node finds them by comparing heads with logic's, or who they are for by a resume. A delivery
// whose form this process does not know is one that the queue sets aside.
package task

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.opentelemetry.io/otel/trace"

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
	System() string // what the broker is called in spans
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
	lookups  lookups
	connects Connects
	records  Records
	tel      observability.Telemetry
	tracer   trace.Tracer
	m        *metrics

	senders  sync.WaitGroup
	stopping chan struct{} // closed when nothing more is handed over
	mu       sync.Mutex
	byNode   map[contract.NodeRef]*sender
}

type metrics struct {
	consumed   prometheus.Counter
	deliveries *prometheus.CounterVec
	pushes     *prometheus.CounterVec
	batch      prometheus.Histogram
	nodes      prometheus.Histogram
	pending    prometheus.Gauge

	queueStage, dispatchStage, pushStage prometheus.Histogram
}

// New builds the layer.
func New(cfg Config, queue Queue, routes Routes, connects Connects, records Records, tel observability.Telemetry) *Task {
	with := promauto.With(tel.Metrics)
	t := &Task{
		cfg: cfg, queue: queue, lookups: lookups{routes: routes, timeout: cfg.Timeout}, connects: connects, records: records, tel: tel,
		tracer:   tel.Traces.Tracer("gochat/layers/task"),
		byNode:   make(map[contract.NodeRef]*sender),
		stopping: make(chan struct{}),
		m: &metrics{
			consumed: with.NewCounter(prometheus.CounterOpts{Name: "gochat_messages_consumed_total", Help: "Messages taken from the queue; one handed over again counts again."}),
			deliveries: with.NewCounterVec(prometheus.CounterOpts{
				Name: "gochat_deliveries_total", Help: "Messages that ended here, by outcome offline or error, and receivers by what nodes answered; see the ledger in package task."}, []string{"outcome"}),
			pushes: with.NewCounterVec(prometheus.CounterOpts{
				Name: "gochat_pushes_total", Help: "Pushes to nodes, by result."}, []string{"result"}),
			batch: with.NewHistogram(prometheus.HistogramOpts{
				Name: "gochat_push_batch_deliveries", Help: "Deliveries in one push.", Buckets: []float64{1, 2, 5, 10, 20, 50, 100, 200, 500}}),
			nodes: with.NewHistogram(prometheus.HistogramOpts{
				Name: "gochat_fanout_nodes", Help: "Nodes that one message is pushed to.", Buckets: []float64{0, 1, 2, 3, 5, 10, 20, 50, 100}}),
			pending: with.NewGauge(prometheus.GaugeOpts{
				Name: "gochat_deliveries_pending", Help: "Messages under way in task: once while the handover that has them is, and once more for each node that is late with them, or that they are kept for."}),
			queueStage:    observability.NewStage(tel.Metrics, observability.StageQueue),
			dispatchStage: observability.NewStage(tel.Metrics, observability.StageDispatch),
			pushStage:     observability.NewStage(tel.Metrics, observability.StagePush),
		},
	}
	for _, outcome := range []string{"offline", "error", "written", "slow", "gone", "had", "deferred"} {
		t.m.deliveries.WithLabelValues(outcome) // a series from the start, so that the first is an increase
	}
	return t
}

// Run consumes until ctx ends and what was handed over is done. It is called once.
func (t *Task) Run(ctx context.Context) error {
	err := t.queue.Consume(ctx, t.handle)
	close(t.stopping)
	t.senders.Wait()
	t.lookups.running.Wait()
	return err
}

// handle brings items to their nodes. An error means that nothing is known of where they should go, or that an item is
// no delivery.
func (t *Task) handle(ctx context.Context, items []contract.Item) error {
	deliveries := make([]delivery, len(items))
	for i := range items {
		d := &deliveries[i]
		if err := d.Decode(items[i].Body); err != nil {
			return &contract.ItemError{Index: i, Err: err}
		}
		d.Traceparent = items[i].Headers[contract.HeaderTraceparent]
		if len(d.Users) > 0 {
			d.addressee = d.Users[0]
		}
	}
	taken := time.Now()
	for i := range deliveries {
		d := &deliveries[i]
		d.taken = taken
		t.beginProcess(d, &items[i], taken)
		if d.Seq > 0 {
			t.m.consumed.Inc()
			observability.ObserveIn(t.m.queueStage, taken.Sub(d.QueuedAt).Seconds(), d.Traceparent)
		}
	}
	t.noteConsumed(items, deliveries)
	t.m.pending.Add(messages(deliveries))
	defer t.m.pending.Sub(messages(deliveries))
	err := t.process(ctx, deliveries)
	endProcess(deliveries, err)
	t.noteDone(deliveries, err)
	return err
}

// process brings deliveries to their nodes and counts those that have ended.
func (t *Task) process(ctx context.Context, deliveries []delivery) error {
	var e ends
	moved, err := t.bring(ctx, deliveries, &e)
	if err == nil && len(moved) > 0 {
		// Who went between the look at the routes and the push is found by a second look, at the same node too.
		err = t.bringAgain(ctx, moved, &e)
	}
	if err != nil {
		return err // what is handed over again is counted then
	}
	t.end(e)
	return nil
}

// delivery is what one item says.
type delivery struct {
	contract.Delivery
	addressee contract.UserID // of a direct message; what others get of it, the sender's further connections, is a courtesy
	again     bool            // it was looked for once already
	taken     time.Time       // from the queue
	span      *processing     // nil if its trace is not recorded
}

// messages is how many of the deliveries are no notices.
func messages(deliveries []delivery) (n float64) {
	for i := range deliveries {
		if deliveries[i].Seq > 0 {
			n++
		}
	}
	return n
}

// ends are messages of which nothing more comes, until they are counted.
type ends struct{ offline, failed []contract.MessageID }

// noteOffline notes a message if the one it is addressed to is among those who have no connection.
func (e *ends) noteOffline(d *delivery, without ...contract.UserID) {
	if d.Seq > 0 && slices.Contains(without, d.addressee) {
		e.offline = append(e.offline, d.Message)
		d.span.is(offline)
	}
}

// noteFailed notes a message that is not brought to its room, or to those of its users, on one node.
func (e *ends) noteFailed(d *contract.Delivery, addressee contract.UserID) {
	if d.Seq > 0 && (d.Room != 0 || slices.Contains(d.Users, addressee)) {
		e.failed = append(e.failed, d.Message)
	}
}

func (t *Task) end(e ends) {
	t.m.deliveries.WithLabelValues("offline").Add(float64(len(e.offline)))
	t.m.deliveries.WithLabelValues("error").Add(float64(len(e.failed)))
	t.records.Offline(e.offline)
	t.records.GivenUp(e.failed)
}

// bring pushes each delivery to the nodes that hold a receiver, and answers the messages to users whom no node had any
// more, with these alone.
func (t *Task) bring(ctx context.Context, deliveries []delivery, e *ends) ([]delivery, error) {
	routes, err := t.lookups.resolve(ctx, deliveries)
	if err != nil {
		return nil, err
	}
	holders := make([]map[contract.UserID]int, len(deliveries)) // how many nodes have the user
	parcels := make(map[contract.NodeRef]*parcel)
	for i := range deliveries {
		holders[i] = t.address(i, &deliveries[i], routes, parcels, e)
	}
	for node, p := range parcels {
		t.records.Bound(node, p.deliveries)
		t.send(node, p)
	}
	late, err := t.wait(ctx, parcels)
	if err != nil {
		return nil, err
	}
	for node, p := range parcels {
		if late[node] == nil {
			t.settle(ctx, node, p, holders, e)
		}
	}
	moved := takeMoved(deliveries, holders)
	if len(late) > 0 {
		waiting := 0
		for _, p := range late {
			for _, of := range p.of { // the parcel itself is its sender's
				deliveries[of].span.is(lateNode)
				if deliveries[of].Seq > 0 {
					waiting++
				}
			}
		}
		t.m.pending.Add(float64(waiting))
		t.senders.Go(func() {
			defer t.m.pending.Sub(float64(waiting))
			t.settleLate(deliveries, holders, late)
		})
	}
	return moved, nil
}

// settle counts what became of a parcel that is done, and takes its node off the holders of the users whom it has no more.
func (t *Task) settle(ctx context.Context, node contract.NodeRef, p *parcel, holders []map[contract.UserID]int, e *ends) {
	t.account(ctx, node, p, e)
	for j, of := range p.of {
		for _, user := range p.absent(j) {
			holders[of][user]--
		}
	}
}

// settleLate does for the parcels of late nodes what bring does for the others, when they are done.
func (t *Task) settleLate(deliveries []delivery, holders []map[contract.UserID]int, late map[contract.NodeRef]*parcel) {
	var e ends
	for node, p := range late {
		<-p.done
		t.settle(context.Background(), node, p, holders, &e)
	}
	var moved []delivery
	for _, d := range takeMoved(deliveries, holders) {
		if d.again {
			e.noteOffline(&d, d.Users...)
		} else {
			moved = append(moved, d)
		}
	}
	if len(moved) > 0 {
		t.bringMoved(moved, &e)
	}
	t.end(e)
}

// takeMoved answers the messages to users whom no node has any more, with these alone, who are holders' no more.
func takeMoved(deliveries []delivery, holders []map[contract.UserID]int) []delivery {
	var moved []delivery
	for i, had := range holders {
		d := deliveries[i]
		d.Users = nil
		for user, n := range had {
			if n == 0 && d.Seq > 0 {
				d.Users = append(d.Users, user)
				delete(had, user)
			}
		}
		if len(d.Users) > 0 {
			moved = append(moved, d)
		}
	}
	return moved
}

// bringAgain brings what bring has answered: who is on no node now either is offline.
func (t *Task) bringAgain(ctx context.Context, moved []delivery, e *ends) error {
	for i := range moved {
		moved[i].again = true
		t.records.LookedAgain(moved[i].Message)
	}
	gone, err := t.bring(ctx, moved, e)
	for i := range gone {
		e.noteOffline(&gone[i], gone[i].Users...)
	}
	return err
}

// address puts delivery i into the parcel of each node that holds a receiver, and answers how many nodes hold each
// user. Who is on none is offline.
func (t *Task) address(i int, d *delivery, routes contract.Routes, parcels map[contract.NodeRef]*parcel, e *ends) map[contract.UserID]int {
	add := func(node contract.NodeRef, one contract.Delivery) {
		p := parcels[node]
		if p == nil {
			p = &parcel{taken: d.taken, done: make(chan struct{})}
			parcels[node] = p
		}
		p.deliveries, p.of, p.addressees = append(p.deliveries, one), append(p.of, i), append(p.addressees, d.addressee)
		p.spans = append(p.spans, d.span)
	}
	if d.Room != 0 {
		nodes := routes.Rooms[d.Room]
		d.span.goesTo(len(nodes), true)
		for _, node := range nodes {
			add(node, d.Delivery)
		}
		if d.Seq > 0 {
			t.m.nodes.Observe(float64(len(nodes)))
		}
		return nil
	}
	holders := make(map[contract.UserID]int, len(d.Users))
	perNode := make(map[contract.NodeRef][]contract.UserID)
	for _, user := range d.Users {
		nodes := routes.Users[user]
		if len(nodes) == 0 {
			e.noteOffline(d, user)
			continue
		}
		holders[user] = len(nodes)
		for _, node := range nodes {
			perNode[node] = append(perNode[node], user)
		}
	}
	for node, users := range perNode {
		forNode := d.Delivery
		forNode.Users = users
		add(node, forNode)
	}
	d.span.goesTo(len(perNode), false)
	if !d.again && d.Seq > 0 {
		t.m.nodes.Observe(float64(len(perNode)))
	}
	return holders
}

// absent are the users of its j-th delivery of whom the node has no connection.
func (p *parcel) absent(j int) []contract.UserID {
	switch {
	case p.err == nil:
		return p.results[j].Absent
	case contract.CodeOf(p.err) == contract.NotFound: // that life of the node has ended
		return p.deliveries[j].Users
	}
	return nil
}

// account counts what became of a parcel.
func (t *Task) account(ctx context.Context, node contract.NodeRef, p *parcel, e *ends) {
	code := contract.CodeOf(p.err)
	switch code {
	case "":
		t.count(p.deliveries, p.results)
		return
	case contract.NotFound: // its people are gone, or under another life of it, which repairs its rooms
		return
	}
	t.tel.Log.WarnContext(ctx, "deliveries not brought to a node", "node", node.String(), "deliveries", len(p.deliveries), "err", p.err)
	for i := range p.deliveries {
		if d := &p.deliveries[i]; d.Room != 0 && d.Seq > 0 && code == contract.Unavailable {
			t.m.deliveries.WithLabelValues("deferred").Inc()
			p.spans[i].is(lateNode) // it finds by itself what it missed
		} else if d.Seq == 0 && d.Room == 0 {
			p.spans[i].is(lateNode) // a notice, or kept for it
		} else {
			e.noteFailed(d, p.addressees[i])
			p.spans[i].is(failed)
		}
	}
}

// count counts what a node has answered.
func (t *Task) count(deliveries []contract.Delivery, results []contract.PushResult) {
	var sum contract.PushResult
	for i, r := range results {
		if deliveries[i].Seq > 0 {
			sum.Written += r.Written
			sum.Queued += r.Queued
			sum.Slow += r.Slow
			sum.Gone += r.Gone
			sum.Had += r.Had
			sum.Deferred += r.Deferred
		}
	}
	t.m.deliveries.WithLabelValues("written").Add(float64(sum.Written + sum.Queued))
	t.m.deliveries.WithLabelValues("slow").Add(float64(sum.Slow))
	t.m.deliveries.WithLabelValues("gone").Add(float64(sum.Gone))
	t.m.deliveries.WithLabelValues("had").Add(float64(sum.Had))
	t.m.deliveries.WithLabelValues("deferred").Add(float64(sum.Deferred))
}

// errShort means that a node answered less than it was asked.
var errShort = errors.New("node answered for fewer deliveries than it was given")
