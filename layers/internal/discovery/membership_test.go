package discovery

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/testdeps"
)

func TestNumbersAreUnique(t *testing.T) {
	servers(t, func(t *testing.T, endpoint string) {
		c := open(t, endpoint, 5*time.Second)
		members := make([]*Membership, 50)
		var wg sync.WaitGroup
		for i := range members {
			wg.Go(func() {
				m, err := c.Join(t.Context())
				if err != nil {
					t.Errorf("join: %v", err)
					return
				}
				members[i] = m
			})
		}
		wg.Wait()
		seen := map[int]bool{}
		for _, m := range members {
			n, ok := m.Number()
			if !ok || n < 0 || n >= Numbers || seen[n] {
				t.Errorf("got number %d %v, want another one in [0,%d)", n, ok, Numbers)
			}
			seen[n] = true
		}
	})
}

func TestNumberIsUsedAgain(t *testing.T) {
	server := testdeps.Etcd(t)
	a := join(t, server.Endpoint(), 2*time.Second)
	number, _ := a.m.Number()
	for n := range Numbers { // all others are taken
		if n != number {
			if _, err := a.c.etcd.Put(t.Context(), fmt.Sprintf("/gochat/numbers/%d", n), ""); err != nil {
				t.Fatal(err)
			}
		}
	}
	c := open(t, server.Endpoint(), 2*time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := c.Join(ctx); err == nil {
		t.Fatal("joined without a free number")
	}
	a.leave(t)
	if _, ok := a.m.Number(); ok {
		t.Error("there is a number after leaving")
	}
	b, err := c.Join(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := b.Number(); !ok || got != number {
		t.Errorf("got number %d %v, want %d", got, ok, number)
	}
}

// A process whose etcd hangs gives its number up before etcd would; it gets another life by itself.
func TestHangEndsTheLife(t *testing.T) {
	const ttl = 2 * time.Second
	server := testdeps.Etcd(t)
	p := join(t, server.Endpoint(), ttl)
	before := register(t, p, "connect", "127.0.0.1:1")
	changed := p.m.Changed()
	server.Pause()
	paused := time.Now()
	await(t, ttl, "the number is given up", func() bool { _, ok := p.m.Number(); return !ok })
	// Etcd counts from a renewal that was sent before the pause, or from later.
	if took := time.Since(paused); took >= ttl {
		t.Errorf("given up after %v, want less than %v", took, ttl)
	}
	if _, ok := p.m.Node("connect"); ok {
		t.Error("there is a node without a lease")
	}
	await(t, time.Second, "the end is told", func() bool {
		select {
		case <-changed:
			return true
		default:
			return false
		}
	})
	server.Resume()
	await(t, 10*time.Second, "a new life", func() bool { n, ok := p.m.Node("connect"); return ok && n.Ref.Epoch > before.Ref.Epoch })
	after, _ := p.m.Node("connect")
	v := watch(t, p.c, "connect")
	await(t, time.Second, "only the new life", shows(v, after))
	if _, ok := v.Lookup(t.Context(), before.Ref); ok {
		t.Error("lookup finds the former life")
	}
}

func TestLifeGoesOnOverAShortHang(t *testing.T) {
	server := testdeps.Etcd(t)
	p := join(t, server.Endpoint(), 4*time.Second)
	before := register(t, p, "connect", "127.0.0.1:1")
	for range 3 {
		server.Pause()
		time.Sleep(time.Second)
		server.Resume()
		time.Sleep(time.Second)
	}
	if n, ok := p.m.Node("connect"); !ok || n != before {
		t.Errorf("got %v %v, want %v still", n, ok, before)
	}
}

// Etcd dies, loses its data or not, and returns on the same address.
func TestRegisteredAgain(t *testing.T) {
	for _, wipe := range []bool{false, true} {
		t.Run(fmt.Sprintf("wipe %v", wipe), func(t *testing.T) {
			const ttl = 2 * time.Second
			server := testdeps.Etcd(t)
			a, b := join(t, server.Endpoint(), ttl), join(t, server.Endpoint(), ttl)
			view := watch(t, a.c, "connect")
			first := register(t, b, "connect", "127.0.0.1:1")
			register(t, b, "api", "127.0.0.1:2")
			await(t, time.Second, "registered", shows(view, first))
			server.Kill()
			if wipe {
				server.Wipe()
			}
			await(t, 5*time.Second, "the life is over", func() bool { _, ok := b.m.Number(); return !ok || wipe })
			if !shows(view, first)() {
				t.Errorf("etcd away: got %v, want the last picture", view.Nodes())
			}
			server.Start()
			other := watch(t, open(t, server.Endpoint(), ttl), "connect")
			same := func() bool {
				n, ok := b.m.Node("connect")
				return ok && (wipe || n.Ref != first.Ref) && shows(view, n)() && shows(other, n)()
			}
			await(t, 10*time.Second, "all see the new life", same)
			n, ok := b.m.Node("api")
			if !ok || n.Addr != "127.0.0.1:2" {
				t.Errorf("api: got %v %v, want it registered again", n, ok)
			}
			na, oka := a.m.Number()
			nb, okb := b.m.Number()
			if !oka || !okb || na == nb {
				t.Errorf("numbers %d %v and %d %v, want two", na, oka, nb, okb)
			}
		})
	}
}

func TestDeregisteredStaysAway(t *testing.T) {
	server := testdeps.Etcd(t)
	p := join(t, server.Endpoint(), time.Second)
	register(t, p, "api", "127.0.0.1:1")
	register(t, p, "connect", "127.0.0.1:2")
	if err := p.m.Deregister(t.Context(), "connect"); err != nil {
		t.Fatal(err)
	}
	if err := p.m.Deregister(t.Context(), "never-there"); err != nil {
		t.Errorf("of a layer that was not there: %v", err)
	}
	before := p.m.current()
	server.Kill()
	server.Wipe()
	server.Start()
	await(t, 10*time.Second, "a new life", func() bool { _, ok := p.m.Node("api"); return ok && p.m.current() != before })
	v := watch(t, p.c, "connect")
	if !shows(v)() {
		t.Errorf("got %v, want none", v.Nodes())
	}
}

func TestRegisterRefuses(t *testing.T) {
	server := testdeps.Etcd(t)
	p := join(t, server.Endpoint(), time.Second)
	for _, tt := range []struct{ layer, addr string }{{"", "127.0.0.1:1"}, {"a/b", "127.0.0.1:1"}, {"api", ""}} {
		if _, err := p.m.Register(t.Context(), tt.layer, tt.addr); contract.CodeOf(err) != contract.BadRequest {
			t.Errorf("register %q at %q: got %v, want bad request", tt.layer, tt.addr, err)
		}
	}
	server.Pause()
	defer server.Resume()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := p.m.Register(ctx, "api", "127.0.0.1:1"); err == nil {
		t.Error("registered while etcd hangs")
	}
}

// Who leaves while etcd is away is not held up for long.
func TestLeaveWithoutEtcd(t *testing.T) {
	server := testdeps.Etcd(t)
	p := join(t, server.Endpoint(), time.Second)
	server.Kill()
	p.leave(t)
	if _, ok := p.m.Number(); ok {
		t.Error("there is a number after leaving")
	}
}
