package rpc

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/smallnest/rpcx/protocol"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/testlog"
	"gochat/layers/internal/testwait"
	"gochat/observability"
)

// libraryLogged is what rpcx has logged in all tests.
var libraryLogged = &testlog.Buffer{}

func TestMain(m *testing.M) {
	ConfigureLibrary(slog.New(slog.NewTextHandler(libraryLogged, &slog.HandlerOptions{Level: slog.LevelDebug})))
	os.Exit(m.Run())
}

const patience = testwait.Patience

var eventually = testwait.Eventually

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

	requests // that it was sent
}

// requests counts them.
type requests struct{ atomic.Int32 }

// PostReadRequest implements rpcx's plugin.
func (r *requests) PostReadRequest(context.Context, *protocol.Message, error) error {
	r.Add(1)
	return nil
}

// serve starts a server; it is drained when the test ends.
func serve(t *testing.T, ref contract.NodeRef, l contract.LogicService, c contract.Connect, tel observability.Telemetry) *node {
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
	srv.rpcx.Plugins.Add(&n.requests)
	go func() { n.done <- srv.Run(ctx, patience) }()
	<-srv.rpcx.Started
	t.Cleanup(func() {
		n.stop()
		testwait.Receive(t, "the server ends", n.done)
		n.done <- nil // for those who ask again
	})
	return n
}

// drain ends the server in order and answers what Run returned.
func (n *node) drain() error {
	n.stop()
	err := testwait.Receive(n.t, "the server ends", n.done)
	n.done <- nil
	return err
}

// kill ends the server at once, as the end of its process does.
func (n *node) kill() {
	_ = n.srv.rpcx.Close()
	testwait.Receive(n.t, "the server ends", n.done)
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
func logged() (observability.Telemetry, *testlog.Buffer) {
	log := &testlog.Buffer{}
	tel := observability.Discard()
	tel.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	return tel, log
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
