package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"gochat/layers/connect/wire"
)

// referenceHeader precedes a frame on the standard input of the reference: group and length, 4 bytes each, big-endian.
const referenceHeader = 8

// reference has a bare write loop do what the system has done: frames of the same length, at the same rate, to as many
// connections. m is the meter of the system.
func (r *runner) reference(ctx context.Context, groups []audience, m *meter) error {
	if m.sample == nil {
		return nil // nothing has come: that is told already
	}
	r.loop.closeAll()
	child, err := startReference(r.o.ReferenceCommand, r.o.Transport)
	if err != nil {
		return fmt.Errorf("start reference: %w", err)
	}
	defer child.stop()
	l, err := newLoop(ctx, r.o.Transport, r.o.Connecting)
	if err != nil {
		return err
	}
	defer l.close()
	defer l.wakeOn(ctx)()
	// The runner's connections are the reference's from here on.
	system, connections := r.loop, r.report.Connections
	r.loop = l
	defer func() { r.loop, r.report.Connections = system, connections }()

	mirrored := make([]audience, len(groups))
	for i, g := range groups {
		for range g.receivers {
			mirrored[i].receivers = append(mirrored[i].receivers, l.add(child.peer(r.o.Transport, i)))
		}
	}
	if err := r.open(ctx); err != nil {
		return err
	}
	sender := l.add(nil)
	sender.fd, sender.state = child.input, up
	child.input = -1 // the loop closes it
	if err := l.control(unix.EPOLL_CTL_ADD, sender.fd, sender.id, sender.interest()); err != nil {
		return fmt.Errorf("watch input of reference: %w", err)
	}
	for i := range mirrored {
		mirrored[i].senders = []*conn{sender}
	}
	p, _, err := r.exchange(ctx, exchange{
		name: "reference", groups: mirrored, of: []Process{{"the write loop", child.cmd.Process.Pid}}, length: r.o.For,
		pattern: func(_ *meter, group int) template {
			b := binary.BigEndian.AppendUint32(nil, uint32(group))
			b = binary.BigEndian.AppendUint32(b, uint32(len(m.sample)))
			return newTemplate(append(b, m.sample...), m.prefix, 0)
		},
	})
	if err != nil {
		return err
	}
	p.Acknowledged = p.Sent // it has no acknowledgements
	r.report.Reference = p
	r.report.fault(int64(l.totals.failed), "reference: %d connections did not come up", l.totals.failed)
	return nil
}

// referenceChild is the process of the write loop.
type referenceChild struct {
	cmd   *exec.Cmd
	input int // this end of its standard input, non-blocking; -1 if it is another's to close
	addr  netip.AddrPort
}

const referencePatience = 10 * time.Second

// startReference returns once the child listens.
func startReference(command []string, transport string) (*referenceChild, error) {
	if len(command) == 0 {
		return nil, errors.New("no command given")
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make socket pair: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "input of reference")
	defer func() { _ = theirs.Close() }()
	cmd := exec.Command(command[0], append(command[1:len(command):len(command)], "--transport", transport)...)
	cmd.Stdin, cmd.Stderr = theirs, os.Stderr
	c := &referenceChild{cmd: cmd, input: pair[0]}
	if err := unix.SetNonblock(pair[0], true); err != nil {
		c.closeInput()
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		c.closeInput()
		return nil, err
	}
	timeout := time.AfterFunc(referencePatience, func() { _ = cmd.Process.Kill() })
	text, err := bufio.NewReader(out).ReadString('\n')
	timeout.Stop()
	if err == nil {
		c.addr, err = netip.ParseAddrPort(strings.TrimSpace(text))
	}
	if err != nil {
		c.stop()
		return nil, fmt.Errorf("read its address: %w", err)
	}
	return c, nil
}

func (c *referenceChild) closeInput() {
	if c.input >= 0 {
		_ = unix.Close(c.input)
		c.input = -1
	}
}

// stop ends the child, which ends by itself once its input has.
func (c *referenceChild) stop() {
	c.closeInput()
	timeout := time.AfterFunc(referencePatience, func() { _ = c.cmd.Process.Kill() })
	defer timeout.Stop()
	_ = c.cmd.Wait() // what it was to do is done
}

// peer makes a connection that is one of the group.
func (c *referenceChild) peer(transport string, group int) *peer {
	p := &peer{addr: sockaddr(c.addr)}
	request := upgradeRequest(c.addr.String(), fmt.Sprintf("/?group=%d", group))
	if transport == WebSocket {
		p.upgrade = request
	} else {
		p.greeting = request
	}
	return p
}

// ServeReference is the least that can do the work of a fan-out: it accepts connections that name their group, and
// writes each frame that it reads from in to all connections of its group, one after another, with plain system calls.
// It prints the address that it listens at and returns when in ends.
func ServeReference(ctx context.Context, transport string, in io.Reader, out io.Writer) error {
	s := &referenceServer{transport: transport, groups: make(map[int][]int)}
	if err := s.listen(); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	var accepting sync.WaitGroup
	defer s.closeAll()
	defer accepting.Wait()
	shut := sync.OnceFunc(func() { _ = unix.Shutdown(s.listener, unix.SHUT_RDWR) }) // ends accept
	defer shut()
	defer context.AfterFunc(ctx, shut)()
	accepting.Go(s.accept)
	if _, err := fmt.Fprintln(out, s.addr); err != nil {
		return fmt.Errorf("print address: %w", err)
	}
	return s.work(bufio.NewReaderSize(in, readSize))
}

type referenceServer struct {
	transport string
	listener  int
	addr      netip.AddrPort

	mu     sync.Mutex // not released for writes: the loop is alone once all have come
	groups map[int][]int
}

func (s *referenceServer) listen() (err error) {
	if s.listener, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return err
	}
	err = unix.Bind(s.listener, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	if err == nil {
		err = unix.Listen(s.listener, 4096)
	}
	if err != nil {
		return err
	}
	bound, err := unix.Getsockname(s.listener)
	if err != nil {
		return err
	}
	at := bound.(*unix.SockaddrInet4)
	s.addr = netip.AddrPortFrom(netip.AddrFrom4(at.Addr), uint16(at.Port))
	return nil
}

func (s *referenceServer) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = unix.Close(s.listener)
	for _, fds := range s.groups {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}
}

// accept shakes hands with one after another until the listener is shut.
func (s *referenceServer) accept() {
	for {
		fd, _, err := unix.Accept4(s.listener, unix.SOCK_CLOEXEC)
		switch err {
		case nil:
		case unix.EINTR, unix.ECONNABORTED:
			continue
		default:
			return
		}
		if err := s.admit(fd); err != nil {
			_ = unix.Close(fd)
		}
	}
}

func (s *referenceServer) admit(fd int) error {
	patience := unix.NsecToTimeval(int64(time.Second))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return err
	}
	var request [1 << 10]byte
	n := 0
	for !bytes.Contains(request[:n], headerEnd) {
		got, err := unix.Read(fd, request[n:])
		if err != nil {
			return err
		}
		if got == 0 {
			return io.ErrUnexpectedEOF
		}
		n += got
	}
	var group int
	if _, err := fmt.Sscanf(string(request[:n]), "GET /?group=%d ", &group); err != nil {
		return err
	}
	answer := wire.AppendText([]byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"), pong)
	if s.transport == TCP {
		answer, _ = appendFrame(nil, TCP, opcodeText, pong, 0)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := writeWhole(fd, answer); err != nil { // with mu: who has it is in the group
		return err
	}
	s.groups[group] = append(s.groups[group], fd)
	return nil
}

// work reads frames and writes each to its group, until in ends.
func (s *referenceServer) work(in io.Reader) error {
	var header [referenceHeader]byte
	var b []byte
	for {
		if _, err := io.ReadFull(in, header[:]); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("read frame: %w", err)
		}
		n := binary.BigEndian.Uint32(header[4:])
		if n > maxFrame {
			return fmt.Errorf("a frame of %d bytes: want %d at most", n, maxFrame)
		}
		if cap(b) < int(n) {
			b = make([]byte, n)
		}
		b = b[:n]
		if _, err := io.ReadFull(in, b); err != nil {
			return fmt.Errorf("read frame: %w", err)
		}
		s.writeAll(int(binary.BigEndian.Uint32(header[:])), b)
	}
}

func (s *referenceServer) writeAll(group int, b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fds := s.groups[group]
	for i := 0; i < len(fds); {
		if err := writeWhole(fds[i], b); err != nil {
			_ = unix.Close(fds[i])
			fds = append(fds[:i], fds[i+1:]...)
			continue
		}
		i++
	}
	s.groups[group] = fds
}

// writeWhole writes b to a non-blocking socket and waits where it takes no more.
func writeWhole(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		switch err {
		case nil:
			b = b[n:]
		case unix.EINTR:
		case unix.EAGAIN:
			ready, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, int(referencePatience/time.Millisecond))
			if err != nil && err != unix.EINTR {
				return err
			}
			if err == nil && ready == 0 {
				return unix.ETIMEDOUT
			}
		default:
			return err
		}
	}
	return nil
}
