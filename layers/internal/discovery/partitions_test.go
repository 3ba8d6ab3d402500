package discovery

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/testdeps"
)

// referee checks that no partition is ever owned twice at a time, and that fences ascend.
type referee struct {
	t  testing.TB
	mu sync.Mutex
	by map[int]contract.NodeID
	// fences are kept over owners.
	fences map[int]int64
}

func newReferee(t testing.TB) *referee {
	return &referee{t: t, by: map[int]contract.NodeID{}, fences: map[int]int64{}}
}

func (r *referee) enter(ctx context.Context, p int, who contract.NodeID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if other, owned := r.by[p]; owned {
		r.t.Errorf("partition %d: %s owns it while %s does", p, who, other)
	}
	if fence := Fence(ctx); fence <= r.fences[p] {
		r.t.Errorf("partition %d: fence %d of %s after %d", p, fence, who, r.fences[p])
	} else {
		r.fences[p] = fence
	}
	r.by[p] = who
}

func (r *referee) leave(p int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.by, p)
}

// owners counts the partitions of each owner.
func (r *referee) owners() map[contract.NodeID]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	counts := map[contract.NodeID]int{}
	for _, who := range r.by {
		counts[who]++
	}
	return counts
}

// even reports whether exactly these nodes own all n partitions, with loads that differ by one at most.
func (r *referee) even(n int, nodes ...contract.NodeID) func() bool {
	return func() bool {
		counts := r.owners()
		sum := 0
		for _, id := range nodes {
			if counts[id] < n/len(nodes) || counts[id] > (n+len(nodes)-1)/len(nodes) {
				return false
			}
			sum += counts[id]
		}
		return sum == n && len(counts) <= len(nodes)
	}
}

// owner is a process that owns partitions of the layer task.
type owner struct {
	*process
	id   contract.NodeID
	end  context.CancelFunc
	done chan error
}

func startOwner(t testing.TB, endpoint string, ttl time.Duration, r *referee, n int) *owner {
	t.Helper()
	o := &owner{process: join(t, endpoint, ttl), done: make(chan error, 1)}
	o.id = register(t, o.process, "task", "127.0.0.1:1").Ref.ID
	v := watch(t, o.c, "task")
	ctx, end := context.WithCancel(context.Background())
	o.end = end
	p := o.m.Partitions("deliveries", v)
	go func() {
		o.done <- p.Run(ctx, n, func(ctx context.Context, i int) error {
			who, _ := o.m.Node("task")
			r.enter(ctx, i, who.Ref.ID)
			<-ctx.Done()
			time.Sleep(rand.N(20 * time.Millisecond)) // what is in flight
			r.leave(i)
			return nil
		})
	}()
	t.Cleanup(func() { o.stop(t) })
	return o
}

// stop drains in the order of a real process: away from the views, then the owners, then the lease.
func (o *owner) stop(t testing.TB) {
	t.Helper()
	if o.end == nil {
		return
	}
	o.end()
	o.end = nil
	select {
	case err := <-o.done:
		if err != nil {
			t.Errorf("partitions: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("partitions do not end")
	}
	o.process.leave(t)
}

func TestShare(t *testing.T) {
	nodesOf := func(n int) []Node {
		nodes := make([]Node, n)
		for i := range nodes {
			nodes[i].Ref.ID = contract.NodeID(fmt.Sprintf("task-%d", i))
		}
		return nodes
	}
	for _, n := range []int{1, 16, 64, 1000} {
		for k := 1; k <= 12; k++ {
			owners := share("deliveries", n, nodesOf(k))
			load := map[contract.NodeID]int{}
			for _, id := range owners {
				load[id]++
			}
			for _, node := range nodesOf(k) {
				if got := load[node.Ref.ID]; got < n/k || got > (n+k-1)/k {
					t.Errorf("%d partitions, %d nodes: %s has %d", n, k, node.Ref.ID, got)
				}
			}
			moved := 0
			for i, id := range share("deliveries", n, nodesOf(k+1)) {
				if id != owners[i] {
					moved++
				}
			}
			// The least is n/(k+1); evenness costs a part of that again.
			if n == 1000 && moved > 2*n/(k+1) {
				t.Errorf("%d nodes and one more: %d of %d moved", k, moved, n)
			}
		}
	}
}

// Every version must assign alike.
func TestShareGolden(t *testing.T) {
	var nodes []Node
	for _, id := range []contract.NodeID{"task-17", "task-3", "task-900"} {
		nodes = append(nodes, Node{Ref: contract.NodeRef{ID: id, Epoch: 1}})
	}
	got := ""
	for _, id := range share("deliveries", 16, nodes) {
		got += fmt.Sprint(slices.IndexFunc(nodes, func(n Node) bool { return n.Ref.ID == id }))
	}
	if want := "0012210102110222"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestPartitionsFollowTheMembers(t *testing.T) {
	servers(t, func(t *testing.T, endpoint string) {
		const n, ttl = 16, 2 * time.Second
		r := newReferee(t)
		a := startOwner(t, endpoint, ttl, r, n)
		await(t, 5*time.Second, "a owns all", r.even(n, a.id))
		b := startOwner(t, endpoint, ttl, r, n)
		c := startOwner(t, endpoint, ttl, r, n)
		await(t, 5*time.Second, "three share", r.even(n, a.id, b.id, c.id))
		if err := a.m.Deregister(t.Context(), "task"); err != nil {
			t.Fatal(err)
		}
		await(t, 5*time.Second, "a gives its share away", r.even(n, b.id, c.id))
		a.stop(t)
		b.stop(t)
		await(t, 5*time.Second, "c owns all", r.even(n, c.id))
		c.stop(t)
		await(t, time.Second, "nobody owns any", func() bool { return len(r.owners()) == 0 })
	})
}

// Five members come and go for a while, in order, by crash, and by losing sight of etcd.
func TestPartitionsSoak(t *testing.T) {
	const n, ttl = 16, 2 * time.Second
	server := testdeps.Etcd(t)
	r := newReferee(t)
	members := make([]*owner, 5)
	links := make([]*link, 5)
	for i := range links {
		links[i] = newLink(t, server.Addr())
	}
	for step := range 30 {
		i := rand.N(len(members))
		switch o := members[i]; {
		case o == nil:
			members[i] = startOwner(t, links[i].endpoint(), ttl, r, n)
		case step%5 == 0:
			links[i].cut() // without a word: its owners must stop by its own clock
			o.stop(t)
			links[i].mend(t)
			members[i] = nil
		case step%5 == 1:
			links[i].cut()
			time.Sleep(rand.N(2 * ttl))
			links[i].mend(t)
		case step%5 == 2:
			server.Pause()
			time.Sleep(rand.N(2 * ttl))
			server.Resume()
		default:
			o.stop(t)
			members[i] = nil
		}
		time.Sleep(rand.N(300 * time.Millisecond))
	}
	if members[0] == nil {
		members[0] = startOwner(t, links[0].endpoint(), ttl, r, n)
	}
	await(t, 20*time.Second, "all are owned, evenly", func() bool {
		var ids []contract.NodeID
		for _, o := range members {
			if o == nil {
				continue
			}
			node, ok := o.m.Node("task")
			if !ok {
				return false
			}
			ids = append(ids, node.Ref.ID)
		}
		return r.even(n, ids...)()
	})
}

// While etcd hangs, owners stop before it could give their keys away.
func TestOwnersStopBeforeTheLease(t *testing.T) {
	const n, ttl = 4, 2 * time.Second
	server := testdeps.Etcd(t)
	r := newReferee(t)
	o := startOwner(t, server.Endpoint(), ttl, r, n)
	await(t, 5*time.Second, "all are owned", r.even(n, o.id))
	server.Pause()
	paused := time.Now()
	await(t, ttl, "owners stop", func() bool { return len(r.owners()) == 0 })
	if took := time.Since(paused); took >= ttl {
		t.Errorf("stopped after %v, want less than %v", took, ttl)
	}
	server.Resume()
	await(t, 10*time.Second, "all are owned again", func() bool {
		node, ok := o.m.Node("task")
		return ok && r.even(n, node.Ref.ID)()
	})
}

// An owner is stopped when its key is gone, whoever took it.
func TestOwnerStopsWithoutItsKey(t *testing.T) {
	server := testdeps.Etcd(t)
	r := newReferee(t)
	o := startOwner(t, server.Endpoint(), 2*time.Second, r, 1)
	await(t, 5*time.Second, "owned", r.even(1, o.id))
	r.mu.Lock()
	first := r.fences[0]
	r.mu.Unlock()
	if _, err := o.c.etcd.Delete(t.Context(), "/gochat/partitions/deliveries/0"); err != nil {
		t.Fatal(err)
	}
	await(t, 5*time.Second, "owned anew", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		_, owned := r.by[0]
		return owned && r.fences[0] > first
	})
}

// A claim that etcd carried out after it was given up does not stay unowned.
func TestStrayClaims(t *testing.T) {
	server := testdeps.Etcd(t)
	p := join(t, server.Endpoint(), 2*time.Second)
	register(t, p, "task", "127.0.0.1:1")
	c := p.m.claims("partitions", "deliveries")
	var want atomic.Bool
	c.more = func() <-chan struct{} { return nil }
	c.wanted = func(int) bool { return want.Load() }
	running := make(chan int64, 1)
	c.own = func(ctx context.Context, _ int) error {
		running <- Fence(ctx)
		<-ctx.Done()
		return nil
	}
	stray := func() int64 {
		t.Helper()
		fence, err := c.create(t.Context(), p.m.current(), 0)
		if err != nil || fence == 0 {
			t.Fatalf("create: %d %v", fence, err)
		}
		return fence
	}
	for _, tt := range []struct {
		name string
		want bool
	}{{"unwanted, deleted", false}, {"wanted, adopted", true}} {
		t.Run(tt.name, func(t *testing.T) {
			want.Store(tt.want)
			fence := stray()
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			wg.Go(func() { c.run(ctx, 1) })
			if tt.want {
				select {
				case got := <-running:
					if got != fence {
						t.Errorf("runs under fence %d, want %d", got, fence)
					}
				case <-time.After(5 * time.Second):
					t.Error("not adopted")
				}
			} else {
				await(t, 5*time.Second, "deleted", func() bool {
					r, err := p.c.etcd.Get(t.Context(), c.key(0))
					return err == nil && len(r.Kvs) == 0
				})
			}
			cancel()
			wg.Wait()
		})
	}
}

func TestOwnerIsCalledAgain(t *testing.T) {
	server := testdeps.Etcd(t)
	p := join(t, server.Endpoint(), 2*time.Second)
	var calls atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	fences := make(chan int64, 3)
	err := p.m.Hold(ctx, "sweeper", func(ctx context.Context) error {
		fences <- Fence(ctx)
		if calls.Add(1) == 3 {
			cancel()
			<-ctx.Done()
		}
		return errors.New("broken")
	})
	if err != nil {
		t.Errorf("hold: %v", err)
	}
	if a, b, c := <-fences, <-fences, <-fences; a == 0 || a != b || b != c {
		t.Errorf("fences %d, %d, %d, want one ownership", a, b, c)
	}
	if Fence(t.Context()) != 0 {
		t.Error("a ctx of no ownership has a fence")
	}
	r, err := p.c.etcd.Get(t.Context(), "/gochat/jobs/sweeper/0")
	if err != nil || len(r.Kvs) != 0 {
		t.Errorf("key after the end: %v %v, want none", r, err)
	}
}

func TestOneHolder(t *testing.T) {
	const ttl = 2 * time.Second
	server := testdeps.Etcd(t)
	r := newReferee(t)
	type holder struct {
		p    *process
		end  context.CancelFunc
		done chan error
	}
	hold := func(p *process) *holder {
		ctx, end := context.WithCancel(context.Background())
		h := &holder{p: p, end: end, done: make(chan error, 1)}
		go func() {
			h.done <- p.m.Hold(ctx, "sweeper", func(ctx context.Context) error {
				n, _ := p.m.Number()
				r.enter(ctx, 0, contract.NodeID(fmt.Sprint(n)))
				<-ctx.Done()
				r.leave(0)
				return nil
			})
		}()
		t.Cleanup(func() { end(); <-h.done })
		return h
	}
	held := func(p *process) func() bool {
		n, _ := p.m.Number()
		return r.even(1, contract.NodeID(fmt.Sprint(n)))
	}
	a, b, c := join(t, server.Endpoint(), ttl), join(t, server.Endpoint(), ttl), join(t, server.Endpoint(), ttl)
	ha := hold(a)
	await(t, 5*time.Second, "a holds", held(a))
	hold(b)
	ha.end() // hands over
	await(t, 5*time.Second, "b holds", held(b))
	hold(c)
	crashed := held(c)
	b.crash(t) // its holder stops by its own clock
	await(t, 3*ttl, "c holds", crashed)
}

func TestPartitionsRefuse(t *testing.T) {
	server := testdeps.Etcd(t)
	p := join(t, server.Endpoint(), time.Second)
	v := watch(t, p.c, "task")
	if err := p.m.Partitions("a/b", v).Run(t.Context(), 1, nil); contract.CodeOf(err) != contract.BadRequest {
		t.Errorf("name with a slash: got %v, want bad request", err)
	}
	if err := p.m.Partitions("a", v).Run(t.Context(), 0, nil); contract.CodeOf(err) != contract.BadRequest {
		t.Errorf("no partitions: got %v, want bad request", err)
	}
	if err := p.m.Hold(t.Context(), "", nil); contract.CodeOf(err) != contract.BadRequest {
		t.Errorf("job without a name: got %v, want bad request", err)
	}
}

// An etcd that has forgotten the leases tells one process before the other. The first must not take what the
// second still owns.
func TestForgottenLeasesDoNotOverlap(t *testing.T) {
	const n, ttl = 8, 2 * time.Second
	server := testdeps.Etcd(t)
	r := newReferee(t)
	slow := newLink(t, server.Addr())
	a := startOwner(t, server.Endpoint(), ttl, r, n)
	b := startOwner(t, slow.endpoint(), ttl, r, n)
	await(t, 10*time.Second, "shared", r.even(n, a.id, b.id))
	lifeA, lifeB := a.m.current(), b.m.current()
	slow.cut() // b learns of it only by its own clock
	server.Kill()
	server.Wipe()
	r.mu.Lock()
	clear(r.fences) // do not order across a wipe
	r.mu.Unlock()
	server.Start()
	await(t, 10*time.Second, "a lives anew", func() bool { return a.m.current() != lifeA })
	await(t, 10*time.Second, "b's life is over", func() bool { return !lifeB.alive() })
	slow.mend(t)
	await(t, 20*time.Second, "shared again", func() bool {
		na, oka := a.m.Node("task")
		nb, okb := b.m.Node("task")
		return oka && okb && r.even(n, na.Ref.ID, nb.Ref.ID)()
	})
}
