package discovery

import (
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/embedded"
	"gochat/layers/internal/testdeps"
	"gochat/layers/internal/testwait"
)

// servers are the kinds of etcd that all must hold for.
func servers(t *testing.T, f func(t *testing.T, endpoint string)) {
	t.Run("etcd", func(t *testing.T) { f(t, testdeps.Etcd(t).Endpoint()) })
	t.Run("embedded", func(t *testing.T) {
		e, err := embedded.StartEtcd(t.Context(), t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(e.Close)
		f(t, e.Endpoint())
	})
}

func TestSeenWithinASecond(t *testing.T) {
	servers(t, func(t *testing.T, endpoint string) {
		a, b := join(t, endpoint, 2*time.Second), join(t, endpoint, 2*time.Second)
		views := []*View{watch(t, a.c, "connect"), watch(t, b.c, "connect"), watch(t, open(t, endpoint, time.Second), "connect")}
		logic := watch(t, a.c, "logic")
		all := func(what string, want ...Node) {
			t.Helper()
			deadline := time.Now().Add(time.Second)
			for i, v := range views {
				await(t, time.Until(deadline), fmt.Sprintf("%s, view %d", what, i), shows(v, want...))
			}
		}
		all("empty")
		node := register(t, a, "connect", "127.0.0.1:1")
		all("registered", node)
		number, _ := a.m.Number()
		if want := contract.NodeID(fmt.Sprintf("connect-%d", number)); node.Ref.ID != want || node.Ref.Epoch <= 0 {
			t.Errorf("got node %v, want %s with an epoch", node, want)
		}
		again := register(t, a, "connect", "127.0.0.1:2")
		if again.Ref.Epoch <= node.Ref.Epoch {
			t.Errorf("got epoch %d after %d, want a higher one", again.Ref.Epoch, node.Ref.Epoch)
		}
		all("registered again", again)
		if err := a.m.Deregister(t.Context(), "connect"); err != nil {
			t.Fatal(err)
		}
		all("deregistered")
		if _, ok := a.m.Node("connect"); ok {
			t.Error("the node still has its registration")
		}
		node = register(t, b, "connect", "127.0.0.1:3")
		all("the other one", node)
		b.leave(t)
		all("left")
		if n := logic.Nodes(); len(n) != 0 {
			t.Errorf("the view of another layer shows %v", n)
		}
	})
}

// TestCrashSeenWithinTheLease: etcd forgets a node that crashes a lease after its last sign of life. So the lease has
// to be the one that is configured, not renewed to more, and the view has to follow etcd without a time of its own:
// not before it, for the node may yet come back, and not after it.
func TestCrashSeenWithinTheLease(t *testing.T) {
	const ttl = 2 * time.Second
	if got := Defaults().LeaseTTL; got > 5*time.Second {
		t.Errorf("the lease is %v unless told otherwise, want at most the 5 s that are promised", got)
	}
	server := testdeps.Etcd(t)
	a := join(t, server.Endpoint(), ttl)
	observer := open(t, server.Endpoint(), ttl)
	v := watch(t, observer, "connect")
	node := register(t, a, "connect", "127.0.0.1:1")
	await(t, time.Second, "registered", shows(v, node))

	key := "/gochat/nodes/connect/" + string(node.Ref.ID)
	ctx, cancel := context.WithTimeout(t.Context(), testwait.Patience)
	defer cancel()
	stored, err := observer.etcd.Get(ctx, key)
	if err != nil || len(stored.Kvs) != 1 {
		t.Fatalf("get %s: %v, %v", key, stored, err)
	}
	forgotten := observer.etcd.Watch(ctx, key, clientv3.WithRev(stored.Header.Revision+1))
	for range 3 { // renewed in between
		lease, err := observer.etcd.TimeToLive(ctx, clientv3.LeaseID(stored.Kvs[0].Lease))
		if err != nil {
			t.Fatal(err)
		}
		if granted, left := time.Duration(lease.GrantedTTL)*time.Second, time.Duration(lease.TTL)*time.Second; granted != ttl || left < 0 || left > ttl {
			t.Errorf("the node lives for %v of %v without a sign of life, want %v", left, granted, ttl)
		}
		time.Sleep(ttl / 3)
	}
	a.crash(t)
	for {
		select {
		case r := <-forgotten:
			if err := r.Err(); err != nil || len(r.Events) != 1 || r.Events[0].Type != clientv3.EventTypeDelete {
				t.Fatalf("etcd tells of %v, %v; want that the node is deleted", r.Events, err)
			}
			await(t, time.Second, "the crash, once etcd has forgotten the node", shows(v))
			return
		case <-time.After(10 * time.Millisecond):
			if !shows(v)() {
				continue
			}
			if got, err := observer.etcd.Get(ctx, key); err != nil || len(got.Kvs) > 0 { // asked after the view
				t.Fatalf("the view has forgotten the node, etcd has %v, %v", got, err)
			}
		}
	}
}

func TestCompactionWhileAway(t *testing.T) {
	server := testdeps.Etcd(t)
	a, b := join(t, server.Endpoint(), 2*time.Second), join(t, server.Endpoint(), 2*time.Second)
	away := newLink(t, server.Addr())
	v := watch(t, open(t, away.endpoint(), 2*time.Second), "connect")
	old := register(t, a, "connect", "127.0.0.1:1")
	await(t, time.Second, "registered", shows(v, old))

	away.cut()
	await(t, 5*time.Second, "the loss", func() bool { return !v.Synced() })
	if !shows(v, old)() {
		t.Errorf("away: got %v, want the last picture", v.Nodes())
	}
	if err := a.m.Deregister(t.Context(), "connect"); err != nil {
		t.Fatal(err)
	}
	node := register(t, b, "connect", "127.0.0.1:2")
	compact(t, a.c.etcd)
	away.mend(t)
	await(t, 5*time.Second, "resync", shows(v, node))
	if !v.Synced() {
		t.Error("not synced after the resync")
	}
	next := register(t, b, "connect", "127.0.0.1:3")
	await(t, time.Second, "the watch goes on", shows(v, next))
}

// A view that hangs on a silent etcd says so, and lives on when it speaks again.
func TestHangIsNoticed(t *testing.T) {
	server := testdeps.Etcd(t)
	v := watch(t, open(t, server.Endpoint(), 2*time.Second), "connect")
	server.Pause()
	await(t, 10*time.Second, "the hang", func() bool { return !v.Synced() })
	server.Resume()
	await(t, 10*time.Second, "the return", v.Synced)
}

// After a wipe revisions begin low. The wiped etcd is brought beyond the old revision before the view can see it,
// so that neither its revision nor its cluster id tells it from the old one.
func TestWipe(t *testing.T) {
	for _, writes := range []int{0, 50} {
		t.Run(fmt.Sprintf("%d writes", writes), func(t *testing.T) {
			server := testdeps.Etcd(t)
			away := newLink(t, server.Addr())
			v := watch(t, open(t, away.endpoint(), 2*time.Second), "connect")
			put := func(id, addr string) Node {
				t.Helper()
				r, err := open(t, server.Endpoint(), 2*time.Second).etcd.Put(t.Context(), "/gochat/nodes/connect/"+id, addr)
				if err != nil {
					t.Fatal(err)
				}
				return Node{Ref: contract.NodeRef{ID: contract.NodeID(id), Epoch: r.Header.Revision}, Layer: "connect", Addr: addr}
			}
			for range 10 {
				put("connect-1", "127.0.0.1:1")
			}
			ghost := put("connect-1", "127.0.0.1:1")
			await(t, time.Second, "registered", shows(v, ghost))

			away.cut()
			server.Kill()
			server.Wipe()
			server.Start()
			for range writes {
				put("other", "x")
			}
			if writes > 0 {
				if _, err := open(t, server.Endpoint(), 2*time.Second).etcd.Delete(t.Context(), "/gochat/nodes/connect/other"); err != nil {
					t.Fatal(err)
				}
			}
			node := put("connect-2", "127.0.0.1:2")
			away.mend(t)
			await(t, 5*time.Second, "resync", shows(v, node))
			next := put("connect-3", "127.0.0.1:3")
			await(t, time.Second, "the watch goes on", shows(v, node, next))
			if _, ok := v.Lookup(t.Context(), ghost.Ref); ok {
				t.Error("lookup finds a life of before the wipe")
			}
		})
	}
}

func TestLookup(t *testing.T) {
	server := testdeps.Etcd(t)
	a := join(t, server.Endpoint(), 2*time.Second)
	away := newLink(t, server.Addr())
	c := open(t, away.endpoint(), 2*time.Second)
	v := watch(t, c, "connect")
	first := register(t, a, "connect", "127.0.0.1:1")
	// At once: whether the watch has brought it or not.
	if got, ok := v.Lookup(t.Context(), first.Ref); !ok || got != first {
		t.Errorf("new life: got %v %v, want %v", got, ok, first)
	}
	second := register(t, a, "connect", "127.0.0.1:2")
	await(t, time.Second, "second life", shows(v, second))
	lookup := func(name string, ref contract.NodeRef, want bool) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		began := time.Now()
		got, ok := v.Lookup(ctx, ref)
		if ok != want || ok && got.Ref != ref {
			t.Errorf("%s: got %v %v, want %v", name, got, ok, want)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s: took %v, want at most a second", name, took)
		}
	}
	future := contract.NodeRef{ID: second.Ref.ID, Epoch: second.Ref.Epoch + 1000}
	lookup("present life", second.Ref, true)
	lookup("former life", first.Ref, false)
	lookup("life that never was", future, false)
	lookup("unknown node", contract.NodeRef{ID: "connect-5000", Epoch: 1}, false)
	away.cut()
	lookup("present life, etcd away", second.Ref, true)
	lookup("later life, etcd away", future, false)
}

func TestViewUnchangedCostsNothing(t *testing.T) {
	server := testdeps.Etcd(t)
	a := join(t, server.Endpoint(), 2*time.Second)
	v := watch(t, a.c, "connect")
	node := register(t, a, "connect", "127.0.0.1:1")
	await(t, time.Second, "registered", shows(v, node))
	if n := testing.AllocsPerRun(100, func() { v.Nodes() }); n != 0 {
		t.Errorf("nodes: %v allocations, want 0", n)
	}
}

// 1,000 nodes come and go; views that come at different times, or lose their connection meanwhile, end equal.
func TestChurn(t *testing.T) {
	server := testdeps.Etcd(t)
	writer := open(t, server.Endpoint(), 2*time.Second)
	away := newLink(t, server.Addr())
	views := []*View{watch(t, writer, "connect"), watch(t, open(t, away.endpoint(), 2*time.Second), "connect")}
	want := map[contract.NodeID]Node{}
	for i := range 3000 {
		switch i {
		case 700, 1900:
			away.cut()
		case 1200, 2200:
			compact(t, writer.etcd)
			away.mend(t)
		case 2000:
			views = append(views, watch(t, open(t, server.Endpoint(), 2*time.Second), "connect"))
		}
		id := fmt.Sprintf("connect-%d", i%1000)
		key := "/gochat/nodes/connect/" + id
		if i >= 1000 && rand.N(2) == 0 {
			if _, err := writer.etcd.Delete(t.Context(), key); err != nil {
				t.Fatal(err)
			}
			delete(want, contract.NodeID(id))
			continue
		}
		r, err := writer.etcd.Put(t.Context(), key, "127.0.0.1:1")
		if err != nil {
			t.Fatal(err)
		}
		ref := contract.NodeRef{ID: contract.NodeID(id), Epoch: r.Header.Revision}
		want[ref.ID] = Node{Ref: ref, Layer: "connect", Addr: "127.0.0.1:1"}
	}
	for i, v := range views {
		await(t, 10*time.Second, fmt.Sprintf("view %d", i), func() bool {
			got := map[contract.NodeID]Node{}
			for _, n := range v.Nodes() {
				got[n.Ref.ID] = n
			}
			return len(got) == len(v.Nodes()) && reflect.DeepEqual(got, want)
		})
	}
	if _, err := writer.etcd.Delete(t.Context(), "/gochat/nodes/", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	for i, v := range views {
		await(t, 10*time.Second, fmt.Sprintf("view %d empty", i), shows(v))
	}
}
