//go:build unix && !linux

package connect

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// poller tells which connections can be read. Where there is no epoll each has a goroutine that waits.
type poller struct {
	wake func(number uint64)
}

// newPoller tells by wake, which does not block, the number of each channel that can be read.
func newPoller(wake func(number uint64)) (*poller, error) { return &poller{wake}, nil }

func (p *poller) close() error { return nil }

// add has the poller know the channel, and wait for it.
func (p *poller) add(c *channel) error { return p.wait(c) }

// wait has the poller tell of the channel once.
func (p *poller) wait(c *channel) error {
	socket, ok := c.conn.(syscall.Conn)
	if !ok {
		return errors.New("the connection is no socket")
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return fmt.Errorf("watch socket: %w", err)
	}
	c.srv.goroutines.Go(func() {
		_ = raw.Read(func(fd uintptr) bool { return canRead(int(fd)) }) // an error is for the reader to find
		p.wake(c.number)
	})
	return nil
}

func canRead(fd int) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
}

func (p *poller) run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}
