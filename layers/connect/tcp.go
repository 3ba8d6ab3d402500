package connect

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"gochat/layers/connect/wire"
	"gochat/layers/internal/contract"
)

// Keep-alive by the kernel: the seed's tcp clients do not answer pings, so silence says nothing about them.
const (
	tcpIdle     = 60 * time.Second
	tcpInterval = 15 * time.Second
	tcpProbes   = 4
)

// acceptTCP accepts until ctx ends. Running out of descriptors is waited out.
func (c *Connect) acceptTCP(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	for {
		conn, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept tcp: %w", err)
		case err != nil:
			c.tel.Log.Warn("connection not accepted", "err", err)
			select {
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		if socket, ok := conn.(*net.TCPConn); ok {
			_ = socket.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: tcpIdle, Interval: tcpInterval, Count: tcpProbes})
		}
		c.admit(conn, tcp, c.serveTCP)
	}
}

// serveTCP reads until the connection ends.
func (c *Connect) serveTCP(ch *channel) {
	deadline := c.authDeadline(ch)
	defer deadline.Stop()
	begun := &begunReader{ch: ch}
	packets := wire.NewPacketReader(begun)
	for {
		payload, err := packets.Next()
		begun.whole(packets.Begun())
		if bad := (*contract.Error)(nil); errors.As(err, &bad) {
			ch.end(bad.Code, bad.Message)
		} else if errors.Is(err, os.ErrDeadlineExceeded) && !ch.isEnded() {
			ch.end(contract.BadRequest, "the rest of the packet did not come in time")
		} else if err != nil {
			return
		}
		if ch.isEnded() {
			ch.discard()
			return
		}
		ch.touch()
		ch.handle(payload)
	}
}

// begunReader gives whoever has begun a packet packetTimeout for the rest of it: half a packet holds memory. One that
// comes whole, as nearly all do, has no timer.
type begunReader struct {
	ch             *channel
	begun, bounded bool
}

func (r *begunReader) Read(b []byte) (int, error) {
	if r.begun && !r.bounded {
		r.bounded = true
		r.ch.readWithin(r.ch.srv.timeouts.packet)
	}
	n, err := r.ch.conn.Read(b)
	r.begun = r.begun || n > 0
	return n, err
}

// whole is called when a packet has been read; with more, a part of the next one is there already.
func (r *begunReader) whole(more bool) {
	if r.bounded {
		r.ch.readWithin(0)
	}
	r.begun, r.bounded = more, false
}

// readWithin bounds the reads of a message from now on; 0 takes the bound away. The bound that the end of the
// connection has set stays.
func (c *channel) readWithin(limit time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return
	}
	var deadline time.Time
	if limit > 0 {
		deadline = time.Now().Add(limit)
	}
	_ = c.conn.SetReadDeadline(deadline) // a closed socket needs none
}

// descriptor is that of the socket below a connection, for as long as nobody closes it.
func descriptor(conn net.Conn) (fd int, err error) {
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return 0, fmt.Errorf("%T has no descriptor", conn)
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return 0, err
	}
	err = raw.Control(func(is uintptr) { fd = int(is) })
	return fd, err
}
