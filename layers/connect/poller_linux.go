package connect

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// poller tells which connections can be read, so that none needs a goroutine that waits. It is an epoll of its own, which Go's
// own epoll watches: whoever waits for it holds no thread.
type poller struct {
	epoll *os.File
	fd    int
	raw   syscall.RawConn
	wake  func(number uint64)
}

// events are told once, until wait is called again. Whoever closes, or is closed, can be read as well.
const pollEvents = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT

// pollPause is between two looks at the sockets while they come more often than that: each look wakes the process, and what is
// read together is sent on together.
const pollPause = 4 * time.Millisecond

// newPoller tells by wake, which does not block, the number of each channel that can be read.
func newPoller(wake func(number uint64)) (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make epoll: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("make epoll: %w", err)
	}
	p := &poller{epoll: os.NewFile(uintptr(fd), "epoll"), fd: fd, wake: wake}
	if p.raw, err = p.epoll.SyscallConn(); err != nil {
		_ = p.epoll.Close()
		return nil, fmt.Errorf("watch epoll: %w", err)
	}
	return p, nil
}

func (p *poller) close() error { return p.epoll.Close() }

// add has the poller know the channel, and wait for it.
func (p *poller) add(c *channel) error { return p.control(unix.EPOLL_CTL_ADD, c) }

// wait has the poller tell of the channel once.
func (p *poller) wait(c *channel) error { return p.control(unix.EPOLL_CTL_MOD, c) }

func (p *poller) control(op int, c *channel) error {
	// The kernel keeps 64 bits for us: Fd is their lower half, Pad the upper.
	e := unix.EpollEvent{Events: pollEvents, Fd: int32(uint32(c.number)), Pad: int32(uint32(c.number >> 32))}
	if err := unix.EpollCtl(p.fd, op, c.fd, &e); err != nil {
		return fmt.Errorf("watch socket: %w", err)
	}
	return nil
}

// run wakes whom it may until ctx ends.
func (p *poller) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = p.epoll.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	events := make([]unix.EpollEvent, 256)
	var told time.Time
	for {
		n := 0
		var waitErr error
		err := p.raw.Read(func(fd uintptr) bool {
			for waitErr = unix.EINTR; waitErr == unix.EINTR; {
				n, waitErr = unix.EpollWait(int(fd), events, 0)
			}
			return n > 0 || waitErr != nil // else the next event is told
		})
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !errors.Is(err, os.ErrDeadlineExceeded):
			return fmt.Errorf("wait for sockets: %w", err)
		case waitErr != nil:
			return fmt.Errorf("wait for sockets: %w", waitErr)
		}
		for _, e := range events[:max(n, 0)] {
			p.wake(uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32)
		}
		now := time.Now()
		if 0 < n && n < len(events) && now.Sub(told) < pollPause {
			time.Sleep(pollPause)
			now = now.Add(pollPause)
		}
		told = now
	}
}
