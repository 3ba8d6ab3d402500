package connect

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"
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
		c.admit(conn, tcp)
	}
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
