package discovery

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"gochat/layers/internal/contract"
)

// Numbers is how many node numbers there are: what a snowflake has room for.
const Numbers = 1024

// Membership is this process's part in the cluster. It lives under one lease at a time, with one node number and
// the registrations of its layers; a lost lease is followed by a new life with a new number and new epochs. Its
// methods may be called from any goroutine.
type Membership struct {
	c *Client

	// turn is held by who writes registrations: a channel, since it is held while etcd is asked.
	turn      chan struct{}
	instances atomic.Int64 // tells the owners of one process apart

	mu      sync.Mutex
	life    *life
	wanted  map[string]string // layer to address, carried from life to life
	nodes   map[string]Node   // what is registered in this life
	changes broadcast
}

// Join begins the first life. It blocks until etcd answers and a number is free, trying again and again and saying
// in the log what it waits for, or returns the error of ctx. Run must follow within the lease.
func (c *Client) Join(ctx context.Context) (*Membership, error) {
	m := &Membership{c: c, turn: make(chan struct{}, 1), wanted: map[string]string{}}
	c.metrics.number.Set(-1)
	if err := m.begin(ctx, time.Time{}); err != nil {
		return nil, err
	}
	return m, nil
}

// Run keeps the lease. When it is lost it begins a new life: new lease, new number, every layer registered again,
// Changed told. When ctx ends it waits for owners that still run, not longer than the lease, then revokes it, so
// that everything of this process vanishes at once, and returns nil. It is called once.
func (m *Membership) Run(ctx context.Context) error {
	for {
		l := m.current()
		err := m.keep(ctx, l)
		l.end() // before Changed tells of it
		m.tell()
		if ctx.Err() != nil {
			break
		}
		m.c.log.WarnContext(ctx, "lease lost, beginning a new life", "number", l.number, "err", err)
		m.c.metrics.number.Set(-1)
		var claimAfter time.Time
		if errors.Is(err, errForgotten) {
			claimAfter = time.Now().Add(l.ttl)
		}
		if err := l.close(ctx, m.c); err != nil {
			m.c.log.DebugContext(ctx, "the lost lease was not revoked", "err", err)
		}
		if err := m.begin(ctx, claimAfter); err != nil {
			break // ctx has ended
		}
	}
	m.c.metrics.number.Set(-1)
	// Not derived from ctx: its end starts the leaving.
	if err := m.current().close(context.WithoutCancel(ctx), m.c); err != nil {
		m.c.log.WarnContext(ctx, "left without revoking the lease, others see it when it expires", "err", err)
	}
	return nil
}

// keep renews until the life is over or ctx ends.
func (m *Membership) keep(ctx context.Context, l *life) error {
	tick := time.NewTicker(l.ttl / 3)
	defer tick.Stop()
	var pause backoff
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.ctx.Done():
			return errOver
		case <-tick.C:
		case <-m.c.resynced: // etcd has been away, and may have lost the lease
		}
		for l.ctx.Err() == nil && ctx.Err() == nil {
			err := l.renew(ctx, m.c)
			if err == nil {
				m.c.metrics.renewed.WithLabelValues("ok").Inc()
				pause.reset()
				break
			}
			if errors.Is(err, errForgotten) || errors.Is(err, errOver) {
				m.c.metrics.renewed.WithLabelValues("lost").Inc()
				return err
			}
			m.c.metrics.renewed.WithLabelValues("error").Inc()
			m.c.log.DebugContext(ctx, "lease not renewed", "err", err)
			sleep(l.ctx, min(pause.next(), l.ttl/10))
		}
	}
}

// begin tries until a life has begun, or returns the error of ctx.
func (m *Membership) begin(ctx context.Context, claimAfter time.Time) error {
	var pause backoff
	for try := 1; ; try++ {
		err := m.tryBegin(ctx, claimAfter)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if try == 1 || try%10 == 0 {
			m.c.log.WarnContext(ctx, "waiting for etcd and a node number", "try", try, "err", err)
		}
		sleep(ctx, pause.next())
	}
}

func (m *Membership) tryBegin(ctx context.Context, claimAfter time.Time) error {
	release, err := m.take(ctx)
	if err != nil {
		return err
	}
	defer release()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	sent := time.Now()
	grant, err := m.c.etcd.Grant(ctx, int64(m.c.cfg.LeaseTTL/time.Second))
	if err != nil {
		return fmt.Errorf("lease: %w", err)
	}
	l := newLife(grant.ID, time.Duration(grant.TTL)*time.Second, sent)
	l.claimAfter = claimAfter
	nodes, err := m.enroll(ctx, l)
	if err == nil && !l.alive() {
		err = errors.New("etcd took longer than the lease")
	}
	if err != nil {
		// Not derived from ctx, which may be what ended: what was written must not stay for the lease.
		return errors.Join(err, l.close(context.WithoutCancel(ctx), m.c))
	}
	m.mu.Lock()
	m.life, m.nodes = l, nodes
	m.changes.tell()
	m.mu.Unlock()
	m.c.metrics.lives.Inc()
	m.c.metrics.number.Set(float64(l.number))
	m.c.log.InfoContext(ctx, "joined the cluster", "number", l.number, "lease", strconv.FormatInt(int64(l.lease), 16))
	return nil
}

// enroll leases a free number and registers the layers with it, in one transaction.
func (m *Membership) enroll(ctx context.Context, l *life) (map[string]Node, error) {
	m.mu.Lock()
	wanted := maps.Clone(m.wanted)
	m.mu.Unlock()
	for {
		number, err := m.freeNumber(ctx)
		if err != nil {
			return nil, err
		}
		key := m.c.numbersFolder() + strconv.Itoa(number)
		puts := []clientv3.Op{clientv3.OpPut(key, strconv.FormatInt(int64(l.lease), 16), clientv3.WithLease(l.lease))}
		for layer, addr := range wanted {
			puts = append(puts, clientv3.OpPut(m.c.nodesFolder(layer)+nodeName(layer, number), addr, clientv3.WithLease(l.lease)))
		}
		r, err := m.c.etcd.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).Then(puts...).Commit()
		if err != nil {
			return nil, fmt.Errorf("number %d: %w", number, err)
		}
		if !r.Succeeded {
			continue // another process was faster
		}
		l.number = number
		nodes := map[string]Node{}
		for layer, addr := range wanted {
			nodes[layer] = newNode(layer, number, r.Header.Revision, addr)
		}
		return nodes, nil
	}
}

// freeNumber picks at random: processes that start together seldom pick the same, and a number that has just been
// left is seldom the next to be used, so that neither a message id of another machine's faster clock nor a route
// of a former life meets its like.
func (m *Membership) freeNumber(ctx context.Context) (int, error) {
	got, err := m.c.etcd.Get(ctx, m.c.numbersFolder(), clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return 0, fmt.Errorf("read numbers: %w", err)
	}
	used := map[string]bool{}
	for _, kv := range got.Kvs {
		used[strings.TrimPrefix(string(kv.Key), m.c.numbersFolder())] = true
	}
	for _, n := range rand.Perm(Numbers) {
		if !used[strconv.Itoa(n)] {
			return n, nil
		}
	}
	return 0, fmt.Errorf("all %d node numbers are taken", Numbers)
}

func nodeName(layer string, number int) string { return layer + "-" + strconv.Itoa(number) }

func newNode(layer string, number int, epoch int64, addr string) Node {
	ref := contract.NodeRef{ID: contract.NodeID(nodeName(layer, number)), Epoch: epoch}
	return Node{Ref: ref, Layer: layer, Addr: addr}
}

// Number is the node number of the present life. It is false from the moment the lease may have expired, as
// judged by this process's own clock, until a new life has begun.
func (m *Membership) Number() (int, bool) {
	l := m.current()
	if !l.alive() {
		return 0, false
	}
	return l.number, true
}

// Changed is closed when a life has begun or ended, or a registration has changed, since the call. Who takes the
// channel, then looks at Node, then waits for it misses nothing.
func (m *Membership) Changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changes.next()
}

func (m *Membership) tell() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changes.tell()
}

func (m *Membership) current() *life {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.life
}

// take waits for the turn to write registrations.
func (m *Membership) take(ctx context.Context) (release func(), err error) {
	select {
	case m.turn <- struct{}{}:
		return func() { <-m.turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
