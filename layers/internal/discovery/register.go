package discovery

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"gochat/layers/internal/contract"
)

// Register makes the layer known at addr, in this life and in each that follows, until Deregister. It blocks until
// etcd has it, or returns the error of ctx, and the layer is not wanted then. Each call begins a new life of the
// node, with a higher epoch.
func (m *Membership) Register(ctx context.Context, layer, addr string) (Node, error) {
	if err := checkName("layer", layer); err != nil {
		return Node{}, err
	}
	if addr == "" {
		return Node{}, contract.Errorf(contract.BadRequest, "register %s: no address", layer)
	}
	m.mu.Lock()
	m.wanted[layer] = addr
	delete(m.nodes, layer)
	m.mu.Unlock()
	var pause backoff
	for {
		node, err := m.tryRegister(ctx, layer, addr)
		if err == nil {
			return node, nil
		}
		sleep(ctx, pause.next())
		if ctx.Err() != nil {
			m.mu.Lock()
			delete(m.wanted, layer)
			m.mu.Unlock()
			return Node{}, fmt.Errorf("register %s: %w", layer, err)
		}
	}
}

func (m *Membership) tryRegister(ctx context.Context, layer, addr string) (Node, error) {
	release, err := m.take(ctx)
	if err != nil {
		return Node{}, err
	}
	defer release()
	if node, ok := m.Node(layer); ok && node.Addr == addr {
		return node, nil // a new life has begun meanwhile, and registered it
	}
	l := m.current()
	if !l.alive() {
		return Node{}, contract.Errorf(contract.Unavailable, "no lease at the moment")
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, err := m.c.etcd.Put(ctx, m.c.nodesFolder(layer)+nodeName(layer, l.number), addr, clientv3.WithLease(l.lease))
	if err != nil {
		return Node{}, err
	}
	node := newNode(layer, l.number, r.Header.Revision, addr)
	m.mu.Lock()
	m.nodes[layer] = node
	m.changes.tell()
	m.mu.Unlock()
	m.c.log.InfoContext(ctx, "registered", "node", node.Ref.String(), "addr", addr)
	return node, nil
}

// Deregister takes the layer away; every other view sees it within a second. It blocks until etcd has it, or
// returns the error of ctx. The layer is not registered again by a later life. Nothing happens if it was not there.
func (m *Membership) Deregister(ctx context.Context, layer string) error {
	m.mu.Lock()
	delete(m.wanted, layer)
	delete(m.nodes, layer)
	m.changes.tell()
	m.mu.Unlock()
	var pause backoff
	for {
		err := m.tryDeregister(ctx, layer)
		if err == nil {
			return nil
		}
		sleep(ctx, pause.next())
		if ctx.Err() != nil {
			return fmt.Errorf("deregister %s: %w", layer, err)
		}
	}
}

func (m *Membership) tryDeregister(ctx context.Context, layer string) error {
	release, err := m.take(ctx)
	if err != nil {
		return err
	}
	defer release()
	l := m.current()
	if !l.alive() {
		return nil // it goes with the lease
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	key := m.c.nodesFolder(layer) + nodeName(layer, l.number)
	// Only of this lease: arriving late, it would else take away a later holder of the number.
	_, err = m.c.etcd.Txn(ctx).If(clientv3.Compare(clientv3.LeaseValue(key), "=", l.lease)).Then(clientv3.OpDelete(key)).Commit()
	if err != nil {
		return err
	}
	m.mu.Lock()
	delete(m.nodes, layer) // again: a life that began meanwhile has brought it back
	m.mu.Unlock()
	return nil
}

// Node is the layer's node in the present life: false if it is not registered, or the lease may have expired.
func (m *Membership) Node(layer string) (Node, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	node, ok := m.nodes[layer]
	if !ok || !m.life.alive() {
		return Node{}, false
	}
	return node, true
}
