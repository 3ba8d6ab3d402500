package rpc

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"gochat/layers/internal/contract"
	"gochat/observability"
)

// libraryLogged is what rpcx has logged in all tests.
var libraryLogged = &syncBuffer{}

func TestMain(m *testing.M) {
	ConfigureLibrary(slog.New(slog.NewTextHandler(libraryLogged, &slog.HandlerOptions{Level: slog.LevelDebug})))
	os.Exit(m.Run())
}

// patience bounds every wait: much longer than anything takes, so that only a broken promise meets it.
const patience = 30 * time.Second

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// await receives from c, and ends the test if nothing comes.
func await[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("not within %s: %s", patience, what)
		panic("unreachable")
	}
}

const secret = "secret of the tests"

func config() Config {
	cfg := Defaults()
	cfg.Secret = secret
	return cfg
}

// node is a server in this process.
type node struct {
	t    *testing.T
	srv  *Server
	peer Peer
	stop context.CancelFunc
	done chan error // of Run
}

// serve starts a server; it is drained when the test ends.
func serve(t *testing.T, ref contract.NodeRef, l contract.Logic, c contract.Connect, tel observability.Telemetry) *node {
	t.Helper()
	srv, err := NewServer(config(), tel.Log)
	if err != nil {
		t.Fatal(err)
	}
	if l != nil {
		if err := srv.ServeLogic(l, tel); err != nil {
			t.Fatal(err)
		}
	}
	if c != nil {
		if err := srv.ServeConnect(c, tel); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	n := &node{t: t, srv: srv, peer: Peer{Ref: ref, Addr: srv.Addr()}, stop: cancel, done: make(chan error, 1)}
	go func() { n.done <- srv.Run(ctx, patience) }()
	<-srv.rpcx.Started
	t.Cleanup(func() {
		n.stop()
		await(t, "the server ends", n.done)
		n.done <- nil // for those who ask again
	})
	return n
}

// drain ends the server in order and answers what Run returned.
func (n *node) drain() error {
	n.stop()
	err := await(n.t, "the server ends", n.done)
	n.done <- nil
	return err
}

// kill ends the server at once, as the end of its process does.
func (n *node) kill() {
	_ = n.srv.rpcx.Close()
	await(n.t, "the server ends", n.done)
	n.done <- nil
}

func ref(id contract.NodeID) contract.NodeRef { return contract.NodeRef{ID: id, Epoch: 1} }

// logicOn is a client of the peers; it is closed when the test ends.
func logicOn(t *testing.T, peers ...Peer) *Logic {
	t.Helper()
	return logicOf(t, func() []Peer { return peers })
}

func logicOf(t *testing.T, peers Peers) *Logic {
	l := NewClients(config(), observability.Discard()).Logic(peers)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// logged is a Telemetry whose log can be read.
func logged() (observability.Telemetry, *syncBuffer) {
	log := &syncBuffer{}
	tel := observability.Discard()
	tel.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	return tel, log
}

type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// silent is a peer that takes connections and never answers; what it does with each is given. It ends with the test.
func silent(t *testing.T, id contract.NodeID, handle func(net.Conn)) Peer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
			serving.Go(func() { handle(conn) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, conn := range conns {
			_ = conn.Close()
		}
		mu.Unlock()
		serving.Wait()
	})
	return Peer{Ref: ref(id), Addr: l.Addr().String()}
}

// swallow reads and says nothing.
func swallow(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }

// dead is a peer whose port nobody listens on.
func dead(t *testing.T, id contract.NodeID) Peer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return Peer{Ref: ref(id), Addr: addr}
}
