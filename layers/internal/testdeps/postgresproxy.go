package testdeps

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// PostgresProxy stands before a server and loses requests and answers as it is told.
type PostgresProxy struct {
	URL string // of the server's maintenance database, through the proxy

	server   string // the server's socket
	listener net.Listener
	serving  sync.WaitGroup

	mu    sync.Mutex
	away  bool
	conns map[net.Conn]struct{} // both ends of each connection
	next  *Lost                 // what is to be lost next, if anything is
}

// Loss is a moment at which a client loses its connection.
type Loss int

const (
	AnswerLost   Loss = iota // when the server has done what was asked
	RequestLost              // before the server has seen it
	RequestLate              // as RequestLost, but the server gets it at Release
	WhileWorking             // when the server has begun, which goes on
)

// Lost is one request that a client does not get an answer to.
type Lost struct {
	Done <-chan struct{} // closed when the client has lost it

	text    string
	how     Loss
	done    chan struct{}
	release chan struct{}
	settled chan struct{} // closed when the server has answered, or ended the connection
}

// Release hands a late request to the server and waits for the answer, whatever it is.
func (l *Lost) Release() {
	close(l.release)
	<-l.settled
}

// postgresSocket is what a server names its socket in the directory.
const postgresSocket = ".s.PGSQL.5432"

// Proxy starts a proxy, which ends with the test.
func (p *PostgresServer) Proxy(t testing.TB) *PostgresProxy {
	t.Helper()
	dir, err := os.MkdirTemp("", "gochat-proxy-") // short: the name of a socket is bounded
	if err != nil {
		t.Fatalf("make proxy directory: %v", err)
	}
	listener, err := net.Listen("unix", filepath.Join(dir, postgresSocket))
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	proxy := &PostgresProxy{
		URL:      "postgres://postgres@/postgres?" + url.Values{"host": {dir}, "sslmode": {"disable"}}.Encode(),
		server:   filepath.Join(p.dir, postgresSocket),
		listener: listener, conns: make(map[net.Conn]struct{}),
	}
	proxy.serving.Go(proxy.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		proxy.Away()
		proxy.serving.Wait()
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove proxy directory: %v", err)
		}
	})
	return proxy
}

// Lose has the next request that holds the text lost. One loss is due at a time.
func (p *PostgresProxy) Lose(text string, how Loss) *Lost {
	l := &Lost{text: text, how: how, done: make(chan struct{}), release: make(chan struct{}), settled: make(chan struct{})}
	l.Done = l.done
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next = l
	return l
}

// Away cuts all connections and refuses new ones, until Back.
func (p *PostgresProxy) Away() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.away = true
	for c := range p.conns {
		_ = c.Close()
	}
}

// Back lets connections in again.
func (p *PostgresProxy) Back() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.away = false
}

func (p *PostgresProxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return // closed
		}
		p.serving.Go(func() { p.serve(client) })
	}
}

func (p *PostgresProxy) serve(client net.Conn) {
	defer func() { _ = client.Close() }()
	server, err := net.Dial("unix", p.server)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	if !p.enter(client, server) {
		return
	}
	defer p.leave(client, server)
	answers := make(chan *Lost, 1) // an answer that the client is not to have
	pumped := make(chan struct{})
	go func() { defer close(pumped); pumpAnswers(client, server, answers) }()
	defer func() { _ = server.Close(); <-pumped }()
	requests := requestReader{from: client}
	for {
		request, err := requests.next()
		if err != nil {
			return
		}
		lost := p.loses(request)
		if lost == nil {
			if _, err := server.Write(request); err != nil {
				return
			}
			continue
		}
		lose(lost, client, server, request, answers, pumped)
		return
	}
}

// lose gives the request up as it was told to, and returns when the server is done with it.
func lose(lost *Lost, client, server net.Conn, request []byte, answers chan<- *Lost, pumped <-chan struct{}) {
	defer close(lost.settled)
	switch lost.how {
	case RequestLost:
		_ = client.Close()
		close(lost.done)
		return
	case RequestLate:
		_ = client.Close()
		close(lost.done)
		<-lost.release
	}
	answers <- lost
	if _, err := server.Write(request); err != nil {
		_ = server.Close()
	}
	if lost.how == WhileWorking {
		_ = client.Close()
		close(lost.done)
	}
	<-pumped
}

// ready ends the server's answer to a request outside of a transaction, which is committed by then.
var ready = []byte{'Z', 0, 0, 0, 5, 'I'}

// pumpAnswers hands the server's answers to the client, until one is lost.
func pumpAnswers(client, server net.Conn, answers <-chan *Lost) {
	defer func() { _ = client.Close() }()
	var lost *Lost
	var held []byte
	chunk := make([]byte, 64<<10)
	for {
		n, err := server.Read(chunk)
		if lost == nil {
			select {
			case lost = <-answers:
			default:
			}
		}
		if lost == nil {
			if _, writeErr := client.Write(chunk[:n]); writeErr != nil || err != nil {
				return
			}
			continue
		}
		if held = append(held, chunk[:n]...); err != nil || bytes.HasSuffix(held, ready) {
			_ = client.Close()
			if lost.how == AnswerLost {
				close(lost.done)
			}
			return
		}
	}
}

// loses is the loss that the request is to suffer, nil if none.
func (p *PostgresProxy) loses(request []byte) *Lost {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.next == nil || !bytes.Contains(request, []byte(p.next.text)) {
		return nil
	}
	lost := p.next
	p.next = nil
	return lost
}

func (p *PostgresProxy) enter(ends ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range ends {
		p.conns[c] = struct{}{}
	}
	return !p.away
}

func (p *PostgresProxy) leave(ends ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range ends {
		delete(p.conns, c)
	}
}

// cancelRequest is the code of a first message by which a client asks the server to give up a statement. It gets lost: a
// network that loses a connection loses this too.
const cancelRequest = 80877102

// requestReader reads what a client sends, up to each point at which it waits for an answer.
type requestReader struct {
	from    io.Reader
	started bool // the first message has no type
}

func (r *requestReader) next() ([]byte, error) {
	var request []byte
	for {
		header := make([]byte, 5)
		if !r.started {
			header = header[:4]
		}
		if _, err := io.ReadFull(r.from, header); err != nil {
			return nil, err
		}
		length := binary.BigEndian.Uint32(header[len(header)-4:]) // of itself and what follows it
		if length < 4 || length > 64<<20 {
			return nil, errors.New("no message of PostgreSQL's protocol")
		}
		body := make([]byte, length-4)
		if _, err := io.ReadFull(r.from, body); err != nil {
			return nil, err
		}
		request = append(append(request, header...), body...)
		if !r.started {
			if len(body) >= 4 && binary.BigEndian.Uint32(body) == cancelRequest {
				return nil, errors.New("a request to cancel")
			}
			r.started = true
			return request, nil
		}
		if bytes.IndexByte([]byte("SQXHp"), header[0]) >= 0 { // sync, query, terminate, flush, password
			return request, nil
		}
	}
}
