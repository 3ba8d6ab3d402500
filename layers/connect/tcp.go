package connect

import (
	"context"
	"errors"
	"fmt"
	"net"
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
	packets := wire.NewPacketReader(ch.conn)
	for {
		payload, err := packets.Next()
		if bad := (*contract.Error)(nil); errors.As(err, &bad) {
			ch.end(bad.Code, bad.Message)
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

// rawConn is the socket below a connection.
func rawConn(conn net.Conn) (syscall.RawConn, error) {
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("%T has no descriptor", conn)
	}
	return socket.SyscallConn()
}
