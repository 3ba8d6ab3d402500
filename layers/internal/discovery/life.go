package discovery

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

var (
	errForgotten = errors.New("etcd knows the lease no more")
	errOver      = errors.New("the lease was not renewed in time")
)

// life is one lease and one node number. It is over, by this process's own clock, a fifth of the lease before
// etcd could let it expire: that fifth is the time in which what runs under it stops. Over is over: an answer
// that comes later does not bring it back.
type life struct {
	lease  clientv3.LeaseID
	number int
	ttl    time.Duration

	ctx context.Context // ends with the life
	end context.CancelFunc

	// claimAfter is when this life may begin to claim keys. Later than its start only if etcd has lost its data:
	// until one lease has passed, others may not have noticed that what they own is theirs no more.
	claimAfter time.Time

	mu       sync.Mutex
	deadline time.Time // when it is over, unless renewed
	timer    *time.Timer
	users    int // those who run under a key of this lease
	idle     broadcast
}

// newLife counts from sent, the moment before etcd was asked: etcd counts from a later one.
func newLife(lease clientv3.LeaseID, ttl time.Duration, sent time.Time) *life {
	// Not of the caller's ctx: the lease outlives the call that took it.
	ctx, end := context.WithCancel(context.Background())
	l := &life{lease: lease, ttl: ttl, ctx: ctx, end: end, deadline: sent.Add(ttl - ttl/5)}
	l.timer = time.AfterFunc(time.Until(l.deadline), end)
	return l
}

// alive looks at the clock as well, since a timer may fire late.
func (l *life) alive() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ctx.Err() == nil && time.Now().Before(l.deadline)
}

// expires is when etcd may give what is under the lease to others.
func (l *life) expires() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.deadline.Add(l.ttl / 5)
}

// renew keeps the lease once, and has the client log in anew if it could not.
func (l *life) renew(ctx context.Context, c *Client) error {
	err := l.tryRenew(ctx, c)
	if err != nil {
		c.auth.forget()
	}
	return err
}

// tryRenew keeps the lease once. The life is prolonged from the moment before etcd was asked. errForgotten and errOver are final.
func (l *life) tryRenew(ctx context.Context, c *Client) error {
	ctx, cancel := context.WithTimeout(ctx, l.ttl/3)
	defer cancel()
	sent := time.Now()
	// A stream for each renewal: with several endpoints each takes another, so that one that hangs costs one try.
	stream, err := pb.NewLeaseClient(c.etcd.ActiveConnection()).LeaseKeepAlive(ctx)
	if err != nil {
		return fmt.Errorf("renew lease: %w", err)
	}
	if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: int64(l.lease)}); err != nil {
		return fmt.Errorf("renew lease: %w", err)
	}
	r, err := stream.Recv()
	if err != nil {
		return fmt.Errorf("renew lease: %w", err)
	}
	if r.TTL <= 0 {
		return errForgotten
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx.Err() != nil || !time.Now().Before(l.deadline) || !l.timer.Stop() {
		return errOver
	}
	l.deadline = sent.Add(l.ttl - l.ttl/5)
	l.timer.Reset(time.Until(l.deadline))
	return nil
}

// enter counts a user of the lease in; false if the life is over.
func (l *life) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx.Err() != nil || !time.Now().Before(l.deadline) {
		return false
	}
	l.users++
	return true
}

func (l *life) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.users--
	if l.users == 0 {
		l.idle.tell()
	}
}

// close ends the life and waits until nobody runs under it, or until etcd may take the lease anyway; then it
// revokes the lease, so that everything under it vanishes at once. Of an owner that overruns nothing is revoked:
// its keys stay for the rest of the lease.
func (l *life) close(ctx context.Context, c *Client) error {
	l.end()
	l.timer.Stop()
	wait, cancel := context.WithDeadline(ctx, l.expires())
	defer cancel()
	for {
		l.mu.Lock()
		users, idle := l.users, l.idle.next()
		l.mu.Unlock()
		if users == 0 {
			break
		}
		select {
		case <-idle:
		case <-wait.Done():
			return fmt.Errorf("%d owners have not stopped in time, the lease is left to expire", users)
		}
	}
	ctx, cancel = context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, err := c.etcd.Revoke(ctx, l.lease); err != nil {
		return fmt.Errorf("revoke lease: %w", err)
	}
	return nil
}
