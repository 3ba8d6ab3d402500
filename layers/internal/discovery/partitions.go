package discovery

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"strconv"
	"sync"

	"gochat/layers/internal/contract"
)

// Partitions divides the numbers [0,n) among the nodes of one layer.
type Partitions struct {
	m    *Membership
	name string
	view *View

	mu     sync.Mutex
	nodes  []Node // what shares was computed from
	shares []contract.NodeID
}

// Partitions makes the division of that name among the nodes that the view shows. This process takes part while
// the view's layer is registered by it. Names are few and fixed: they label a metric.
func (m *Membership) Partitions(name string, view *View) *Partitions {
	return &Partitions{m: m, name: name, view: view}
}

// Run calls own(ctx, p) in a goroutine for each partition in [0,n) that this process comes to own. Fence(ctx) is the
// fencing token. The ctx ends when the partition is no longer this process's share, when the lease is lost as this
// process sees it, which is before another could own the partition, or when ctx ends; own must return then, since
// the partition passes on only after it has. An own that returns while the partition is owned is called again
// after a pause. Run returns nil after ctx has ended and every own has returned. It is called once.
func (p *Partitions) Run(ctx context.Context, n int, own func(ctx context.Context, partition int) error) error {
	if err := checkName("partitions", p.name); err != nil {
		return err
	}
	if n <= 0 {
		return contract.Errorf(contract.BadRequest, "%d partitions: want at least one", n)
	}
	c := p.m.claims("partitions", p.name)
	c.more = p.view.Changed
	c.own = own
	c.wanted = func(i int) bool {
		node, ok := p.m.Node(p.view.Layer())
		return ok && p.owner(i, n) == node.Ref.ID
	}
	c.run(ctx, n)
	return nil
}

// owner is the node that should own the partition: "" if the view shows none.
func (p *Partitions) owner(i, n int) contract.NodeID {
	nodes := p.view.Nodes()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(nodes) == 0 {
		return ""
	}
	if len(p.shares) != n || len(p.nodes) != len(nodes) || &p.nodes[0] != &nodes[0] {
		p.nodes, p.shares = nodes, share(p.name, n, nodes)
	}
	return p.shares[i]
}

// share assigns every partition to a node by rendezvous hashing with an even load: partitions, in their order, go
// to the node with the highest score for them that has room. Each node has room for n/len(nodes), and the first
// n%len(nodes) nodes that want one more get it. So loads differ by at most one, everybody who sees the same nodes
// comes to the same result, and when a node comes or goes most partitions stay where they are.
func share(name string, n int, nodes []Node) []contract.NodeID {
	owners := make([]contract.NodeID, n)
	load := make([]int, len(nodes))
	room, extra := n/len(nodes), n%len(nodes)
	for i := range owners {
		best, bestScore := -1, uint64(0)
		for k := range nodes {
			if load[k] > room || load[k] == room && extra == 0 {
				continue
			}
			if s := score(name, i, nodes[k].Ref.ID); best < 0 || s > bestScore {
				best, bestScore = k, s
			}
		}
		if load[best] == room {
			extra--
		}
		load[best]++
		owners[i] = nodes[best].Ref.ID
	}
	return owners
}

// score is how much a node wants a partition: the first eight bytes of the SHA-256 of "name/partition/node", big
// endian. Every version of this program must compute the same.
func score(name string, partition int, node contract.NodeID) uint64 {
	sum := sha256.Sum256([]byte(name + "/" + strconv.Itoa(partition) + "/" + string(node)))
	return binary.BigEndian.Uint64(sum[:])
}

// Hold runs do whenever this process holds the job of that name, which one process of the cluster does at a time.
// The ctx of do ends when the lease is lost as this process sees it, which is before another could hold the job,
// or when ctx ends; do must return then, since the job passes on only after it has. Fence(ctx) is the fencing
// token. A do that returns while the job is held is called again after a pause. Hold returns nil after ctx has
// ended and do has returned. Names are few and fixed: they label a metric.
func (m *Membership) Hold(ctx context.Context, name string, do func(ctx context.Context) error) error {
	if err := checkName("job", name); err != nil {
		return err
	}
	c := m.claims("jobs", name)
	c.more = func() <-chan struct{} { return nil }
	c.own = func(ctx context.Context, _ int) error { return do(ctx) }
	c.wanted = func(int) bool { _, ok := m.Number(); return ok }
	c.run(ctx, 1)
	return nil
}
