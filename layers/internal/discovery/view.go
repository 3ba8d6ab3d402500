package discovery

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"gochat/layers/internal/contract"
)

// lookupWait bounds what Lookup spends on asking etcd about a life that the view has not seen.
const lookupWait = time.Second

// Node is one life of one layer of one process.
type Node struct {
	Ref   contract.NodeRef
	Layer string
	Addr  string // host:port where its rpc answers; of a layer without rpc, where people find it
}

func compareNode(n Node, id contract.NodeID) int {
	return strings.Compare(string(n.Ref.ID), string(id))
}

// View is a live picture of one layer's nodes. It answers at once and without etcd: empty until the first read,
// then the last known picture for as long as etcd is away. Its methods may be called from any goroutine.
type View struct {
	layer string
	m     *mirror

	mu    sync.Mutex
	from  []entry // what nodes was made of
	nodes []Node
}

// Watch starts a view that follows etcd until ctx ends or the client is closed; Close waits for its goroutine. It
// does not wait for etcd: see WaitSynced. It fails only for a name that cannot be a layer's, or after Close.
func (c *Client) Watch(ctx context.Context, layer string) (*View, error) {
	if err := checkName("layer", layer); err != nil {
		return nil, err
	}
	v := &View{layer: layer, m: &mirror{c: c, folder: c.nodesFolder(layer), label: layer}}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.ctx.Err(); err != nil {
		return nil, contract.Errorf(contract.Unavailable, "discovery is closed")
	}
	c.views.Go(func() {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(c.ctx, cancel)()
		v.run(ctx)
	})
	return v, nil
}

func (v *View) run(ctx context.Context) {
	var gauge sync.WaitGroup
	defer gauge.Wait()
	gauge.Go(func() {
		for ctx.Err() == nil {
			changed := v.Changed()
			v.m.c.metrics.nodes.WithLabelValues(v.layer).Set(float64(len(v.Nodes())))
			select {
			case <-changed:
			case <-ctx.Done():
			}
		}
	})
	v.m.run(ctx)
}

// Layer is the layer that the view is of.
func (v *View) Layer() string { return v.layer }

// Nodes are the layer's live nodes, sorted by id. The slice is shared and must not be changed; it is the same one
// until the picture changes.
func (v *View) Nodes() []Node {
	entries, _, _ := v.m.snapshot()
	v.mu.Lock()
	defer v.mu.Unlock()
	if same(v.from, entries) {
		return v.nodes
	}
	nodes := make([]Node, len(entries))
	for i, e := range entries {
		nodes[i] = v.node(e)
	}
	v.from, v.nodes = entries, nodes
	return nodes
}

// same reports whether both are one slice; the mirror never changes one in place.
func same(a, b []entry) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

func (v *View) node(e entry) Node {
	return Node{Ref: contract.NodeRef{ID: contract.NodeID(e.name), Epoch: e.modified}, Layer: v.layer, Addr: e.value}
}

// Synced reports whether the picture is live: it has been read, and the watch has not been lost since. Who acts on
// the absence of a node, to clean up after it, acts only while this holds.
func (v *View) Synced() bool {
	_, _, live := v.m.snapshot()
	return live
}

// WaitSynced blocks until Synced, or returns the error of ctx.
func (v *View) WaitSynced(ctx context.Context) error {
	for {
		changed := v.Changed()
		if v.Synced() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Changed is closed when Nodes or Synced may answer differently than at the time of the call. Who takes the
// channel, then looks, then waits for it misses nothing.
func (v *View) Changed() <-chan struct{} { return v.m.changed() }

// Lookup finds the node of that life. If the life is newer than the picture, etcd itself is asked, bounded by ctx
// and one second. False means that this life has ended, or that nothing is known of it.
func (v *View) Lookup(ctx context.Context, ref contract.NodeRef) (Node, bool) {
	node, rev, ok := v.find(ref)
	if ok || ref.Epoch <= rev {
		return node, ok
	}
	ctx, cancel := context.WithTimeout(ctx, lookupWait)
	defer cancel()
	// Not a wait for the watch: after etcd has lost its data, the picture would never come to a revision of before.
	if got, err := v.m.c.etcd.Get(ctx, v.m.folder+string(ref.ID)); err == nil {
		if len(got.Kvs) == 0 || got.Kvs[0].ModRevision != ref.Epoch {
			return Node{}, false
		}
		return v.node(v.m.entry(got.Kvs[0])), true
	}
	node, _, ok = v.find(ref)
	return node, ok
}

func (v *View) find(ref contract.NodeRef) (node Node, rev int64, ok bool) {
	_, rev, _ = v.m.snapshot() // before the nodes, which are then at least as new
	nodes := v.Nodes()
	i, found := slices.BinarySearchFunc(nodes, ref.ID, compareNode)
	if !found || nodes[i].Ref != ref {
		return Node{}, rev, false
	}
	return nodes[i], rev, true
}
