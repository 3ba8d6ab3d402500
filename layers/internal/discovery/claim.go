package discovery

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// steady is how long an owner has to run for its next failure to count as the first.
const steady = 10 * time.Second

type fenceKey struct{}

// Fence is the fencing token of the ownership under which ctx was handed out: higher for each later owner of the
// same partition or job, as long as etcd keeps its data. 0 if ctx is of no ownership.
func Fence(ctx context.Context) int64 {
	fence, _ := ctx.Value(fenceKey{}).(int64)
	return fence
}

// claims are n keys of one folder, of which this process owns those it wants and can get. A key is created under
// the lease only if it is absent, and deleted only after the owner has returned: so two owners never overlap.
type claims struct {
	m      *Membership
	name   string
	keys   *mirror
	wanted func(i int) bool
	more   func() <-chan struct{} // closed when wanted may answer differently
	own    func(ctx context.Context, i int) error
	mark   string // tells this owner from others of the process
}

func (m *Membership) claims(kind, name string) *claims {
	return &claims{
		m:    m,
		name: name,
		keys: &mirror{c: m.c, folder: m.c.cfg.Prefix + "/" + kind + "/" + name + "/", label: kind + "/" + name},
		mark: strconv.FormatInt(m.instances.Add(1), 10),
	}
}

// run returns after ctx has ended and every owner has returned.
func (c *claims) run(ctx context.Context, n int) {
	// Not ended by ctx: until the last owner has returned, it must see whether its key is still there.
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	var watch, owners sync.WaitGroup
	watch.Go(func() { c.keys.run(watching) })
	for i := range n {
		owners.Go(func() { c.campaign(ctx, i) })
	}
	owners.Wait()
	stop()
	watch.Wait()
}

// campaign owns key i whenever it is wanted and free.
func (c *claims) campaign(ctx context.Context, i int) {
	var pause backoff
	for ctx.Err() == nil {
		signals := c.signals()
		l := c.m.current()
		e, taken, _ := c.keys.find(strconv.Itoa(i))
		// A request that was given up, yet carried out, leaves a key of ours that nobody owns.
		stray := taken && e.value == c.value(l)
		retry := time.Hour
		switch early := time.Until(l.claimAfter); {
		case early > 0:
			retry = early
		case c.wanted(i) && (!taken || stray):
			c.once(ctx, l, i)
			retry = pause.next()
		case stray:
			if c.delete(ctx, i, e.created) != nil {
				retry = pause.next()
			}
		default:
			pause.reset()
		}
		t := time.NewTimer(retry)
		signals.wait(ctx, t.C)
		t.Stop()
	}
}

// once tries to take the key; if it comes to own it, it returns after the ownership has ended and the key is gone.
func (c *claims) once(ctx context.Context, l *life, i int) {
	if !l.enter() {
		return
	}
	defer l.leave()
	fence, err := c.create(ctx, l, i)
	if err != nil {
		c.m.c.log.DebugContext(ctx, "claim failed", "name", c.name, "index", i, "err", err)
		return
	}
	if fence == 0 {
		return // somebody else's
	}
	c.serve(ctx, l, i, fence)
	if !l.alive() {
		return // the key goes with the lease, which is revoked once all its owners have returned
	}
	if err := c.delete(context.WithoutCancel(ctx), i, fence); err != nil {
		c.m.c.log.WarnContext(ctx, "not given back yet", "name", c.name, "index", i, "err", err)
	}
}

// serve runs own for as long as the key is this process's and wanted.
func (c *claims) serve(ctx context.Context, l *life, i int, fence int64) {
	ctx, cancel := context.WithCancel(context.WithValue(ctx, fenceKey{}, fence))
	var guard sync.WaitGroup
	defer guard.Wait()
	defer cancel()
	defer context.AfterFunc(l.ctx, cancel)()
	guard.Go(func() {
		defer cancel()
		for ctx.Err() == nil {
			signals := c.signals()
			e, found, rev := c.keys.find(strconv.Itoa(i))
			if !c.wanted(i) || rev >= fence && (!found || e.created != fence) {
				return
			}
			signals.wait(ctx, nil)
		}
	})
	c.m.c.metrics.owned.WithLabelValues(c.name).Inc()
	defer c.m.c.metrics.owned.WithLabelValues(c.name).Dec()
	var pause backoff
	for ctx.Err() == nil && l.alive() {
		began := time.Now()
		err := c.own(ctx, i)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > steady {
			pause.reset()
		}
		c.m.c.log.WarnContext(ctx, "owner returned early, it is called again", "name", c.name, "index", i, "err", err)
		sleep(ctx, pause.next())
	}
}

func (c *claims) key(i int) string { return c.keys.folder + strconv.Itoa(i) }

// value names the owner: the process's number and lease, and which of its owners.
func (c *claims) value(l *life) string {
	return fmt.Sprintf("%d %x %s", l.number, int64(l.lease), c.mark)
}

// create answers the fence, or 0 if the key is another's.
func (c *claims) create(ctx context.Context, l *life, i int) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	defer context.AfterFunc(l.ctx, cancel)()
	key := c.key(i)
	r, err := c.m.c.etcd.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
		Then(clientv3.OpPut(key, c.value(l), clientv3.WithLease(l.lease))).
		Else(clientv3.OpGet(key)).
		Commit()
	if err != nil {
		return 0, err
	}
	if r.Succeeded {
		return r.Header.Revision, nil
	}
	if kvs := r.Responses[0].GetResponseRange().Kvs; len(kvs) == 1 && string(kvs[0].Value) == c.value(l) {
		return kvs[0].CreateRevision, nil
	}
	return 0, nil
}

// delete gives the key back, if it is still the one that was created at that revision.
func (c *claims) delete(ctx context.Context, i int, created int64) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	key := c.key(i)
	_, err := c.m.c.etcd.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(key), "=", created)).
		Then(clientv3.OpDelete(key)).
		Commit()
	return err
}

// signals are all that may change what is to be done; they are taken before looking.
type signals struct{ keys, lives, more <-chan struct{} }

func (c *claims) signals() signals {
	return signals{keys: c.keys.changed(), lives: c.m.Changed(), more: c.more()}
}

func (s signals) wait(ctx context.Context, after <-chan time.Time) {
	select {
	case <-s.keys:
	case <-s.lives:
	case <-s.more:
	case <-after:
	case <-ctx.Done():
	}
}
