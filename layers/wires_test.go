package layers

import (
	"net"
	"sync"
	"testing"
)

// wires stands between clients and a tcp socket, and can be cut.
type wires struct {
	listener net.Listener
	to       string
	done     sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn
	state wiresState
}

type wiresState int

const (
	wiresUp   wiresState = iota
	wiresDown            // nobody gets through
	wiresDeaf            // what the server says is dropped
	wiresMute            // what clients say is dropped
)

func wire(t *testing.T, to string) *wires {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wires{listener: listener, to: to}
	w.done.Go(w.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		w.set(wiresDown)
		w.done.Wait()
	})
	return w
}

func (w *wires) accept() {
	for {
		client, err := w.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", w.to)
		w.mu.Lock()
		if err != nil || w.state == wiresDown {
			_ = client.Close()
			if err == nil {
				_ = server.Close()
			}
			w.mu.Unlock()
			continue
		}
		w.conns = append(w.conns, client, server)
		w.mu.Unlock()
		w.done.Go(func() { w.copy(server, client, wiresMute) })
		w.done.Go(func() { w.copy(client, server, wiresDeaf) })
	}
}

func (w *wires) copy(to, from net.Conn, drop wiresState) {
	defer func() { _, _ = to.Close(), from.Close() }()
	buf := make([]byte, 4<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		w.mu.Lock()
		dropped := w.state == drop
		w.mu.Unlock()
		if dropped {
			continue
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (w *wires) set(state wiresState) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state = state
	if state == wiresDown {
		for _, c := range w.conns {
			_ = c.Close()
		}
		w.conns = nil
	}
}
