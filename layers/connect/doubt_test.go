package connect

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"gochat/layers/internal/contract"
	"gochat/observability"
)

// unsteady are routes that cannot be reached now and then.
type unsteady struct{ away, replaced atomic.Bool }

func (u *unsteady) err() error {
	if u.away.Load() {
		return errors.New("away")
	}
	return nil
}

func (u *unsteady) Apply(context.Context, contract.NodeRef, []contract.RouteChange) error {
	return u.err()
}
func (u *unsteady) Registered(context.Context, contract.NodeRef) (bool, error) { return true, u.err() }
func (u *unsteady) Replace(context.Context, contract.NodeRef, []contract.RouteChange) error {
	if err := u.err(); err != nil {
		return err
	}
	u.replaced.Store(true)
	return nil
}

// TestNobodyIsLetInOnDoubtfulRoutes: after the routes could not be reached, a further connection of somebody who is
// counted already waits until everything is written anew, since what comes back may be empty.
func TestNobodyIsLetInOnDoubtfulRoutes(t *testing.T) {
	routes := &unsteady{}
	self := func() (contract.NodeRef, bool) { return contract.NodeRef{ID: "connect-1", Epoch: 1}, true }
	tell := func(context.Context, []contract.RoomID) error { return nil }
	tel := observability.Discard()
	r := newRegistrar(Config{Refresh: 20 * time.Millisecond, Timeout: 20 * time.Second}, routes, self, tell,
		newMetrics(tel.Metrics, 1), tel.Log)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); r.run(ctx) }()
	defer func() { stop(); <-done }()

	ann := &who{user: 1, name: "ann"}
	if err := r.arrive(t.Context(), ann, 1); err != nil {
		t.Fatal(err)
	}
	routes.away.Store(true)
	eventually(t, "the routes are in doubt", func() bool { return r.life() == contract.NodeRef{} })
	routes.replaced.Store(false)
	arrived := make(chan error, 1)
	go func() { arrived <- r.arrive(t.Context(), ann, 1) }()
	select {
	case err := <-arrived:
		t.Fatalf("let in while the routes cannot be reached: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	routes.away.Store(false)
	if err := <-arrived; err != nil {
		t.Fatal(err)
	}
	if !routes.replaced.Load() {
		t.Error("let in before everything was written anew")
	}
}
