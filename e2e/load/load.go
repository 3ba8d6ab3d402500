// Package load is people who chat while a system is being broken. Each holds one connection, comes back whenever it
// ends and asks for what it missed, sends messages one after another and each of them again until it is acknowledged,
// and tells a checker everything. They know a system by its addresses alone.
package load

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"gochat/e2e/checker"
)

// Addresses are where a system can be reached. Those of one kind are tried by turns.
type Addresses struct {
	API, WebSocket, TCP []string    // host:port
	TLS                 *tls.Config // for the first two, which are without TLS where there is none
}

// Options say how people behave.
type Options struct {
	Addresses Addresses
	Room      int64         // where all of them are, and send to
	Pause     time.Duration // between two messages of one person
	Seed      uint64
	Log       func(format string, args ...any)
}

// Crowd is people in one room, who write to it and to each other.
type Crowd struct {
	Checker *checker.Checker

	options Options
	http    *http.Client
	people  []*person
	running sync.WaitGroup
	sending sync.WaitGroup
	quit    chan struct{} // ends the sending
	failed  atomic.Int64  // sends that were tried again
}

// Patience bounds every single thing that a person waits for before trying again.
const Patience = 3 * time.Second

// New registers so many people. It tries until ctx ends.
func New(ctx context.Context, n int, o Options) (*Crowd, error) {
	c := &Crowd{
		Checker: checker.New(), options: o, quit: make(chan struct{}),
		http: &http.Client{Timeout: Patience, Transport: &http.Transport{MaxIdleConnsPerHost: n, TLSClientConfig: o.Addresses.TLS}},
	}
	for i := range n {
		p := &person{crowd: c, number: i, name: fmt.Sprintf("person-%d-%d", o.Seed%1_000_000, i), waiting: make(map[string]chan answer), done: make(map[string]bool)}
		if err := p.register(ctx); err != nil {
			return nil, fmt.Errorf("register %s: %w", p.name, err)
		}
		c.people = append(c.people, p)
	}
	room := fmt.Sprintf("room:%d", o.Room)
	for _, p := range c.people {
		due := map[string]int64{room: 0}
		for _, other := range c.people {
			due[checker.Direct(p.id, other.id)] = 0
		}
		p.due = due
		p.seen = c.Checker.Client(p.name, p.id, due)
	}
	return c, nil
}

// Start has everybody connect and send until Stop. ctx ends everything at once.
func (c *Crowd) Start(ctx context.Context) {
	for _, p := range c.people {
		c.running.Go(func() { p.live(ctx) })
		c.sending.Go(func() { p.chat(ctx) })
	}
}

// Stop ends the sending, and returns once every message is acknowledged, or ctx has ended.
func (c *Crowd) Stop(ctx context.Context) error {
	close(c.quit)
	done := make(chan struct{})
	go func() { c.sending.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("messages without an acknowledgement: %w", ctx.Err())
	}
}

// Lacking waits until everybody has everything without asking for it, at most until ctx ends, and answers who has not.
func (c *Crowd) Lacking(ctx context.Context) []string {
	for {
		var who []string
		for _, v := range c.Checker.Verify() {
			if v.Kind == checker.Lost || v.Kind == checker.Hole {
				who = append(who, v.Detail)
			}
		}
		if len(who) == 0 || ctx.Err() != nil {
			return who
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// Resync has everybody ask for what they miss and waits for the answers.
func (c *Crowd) Resync(ctx context.Context) error {
	var all sync.WaitGroup
	errs := make([]error, len(c.people))
	for i, p := range c.people {
		all.Go(func() { errs[i] = p.resync(ctx) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// Retries answers how many sends had to be tried again.
func (c *Crowd) Retries() int64 { return c.failed.Load() }

// Wait returns once everybody has left, after the ctx of Start has ended.
func (c *Crowd) Wait() { c.running.Wait(); c.sending.Wait() }

// person is one of them.
type person struct {
	crowd  *Crowd
	number int
	name   string
	id     int64
	due    map[string]int64
	seen   *checker.Client

	mu      sync.Mutex
	token   string
	link    Link                   // nil while not connected and authenticated
	waiting map[string]chan answer // sends without an answer, by client id
	done    map[string]bool        // conversations of the present resync that are complete
	synced  chan struct{}          // closed when all are
}

// answer is what became of a send.
type answer struct {
	receipt checker.Receipt
	err     error
	retry   time.Duration
}

const password = "secret-password"

func (p *person) register(ctx context.Context) error {
	for {
		err := p.logIn(ctx, "/v1/register", http.StatusCreated)
		var refused *statusError
		if errors.As(err, &refused) && refused.status == http.StatusConflict { // an earlier try was answered by nobody
			err = p.logIn(ctx, "/v1/login", http.StatusOK)
		}
		if err == nil || ctx.Err() != nil {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (p *person) logIn(ctx context.Context, path string, want int) error {
	var out struct {
		Token  string `json:"token"`
		UserID int64  `json:"userId"`
	}
	if err := p.call(ctx, path, "", map[string]any{"name": p.name, "password": password}, want, &out); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.token = out.Token
	if p.id == 0 { // from then on it is read without mu
		p.id = out.UserID
	}
	return nil
}

// statusError is an answer other than the one wanted.
type statusError struct {
	status int
	body   string
}

func (e *statusError) Error() string { return fmt.Sprintf("status %d: %.200s", e.status, e.body) }

func (p *person) call(ctx context.Context, path, token string, in any, want int, out any) error {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	a := p.crowd.options.Addresses
	scheme := "http"
	if a.TLS != nil {
		scheme = "https"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, scheme+"://"+a.API[rand.IntN(len(a.API))]+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := p.crowd.http.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != want {
		return &statusError{response.StatusCode, string(answer)}
	}
	return json.Unmarshal(answer, out)
}

// chat sends one message after another.
func (p *person) chat(ctx context.Context) {
	random := rand.New(rand.NewPCG(p.crowd.options.Seed, uint64(p.number)))
	for n := 0; ; n++ {
		select {
		case <-time.After(time.Duration(float64(p.crowd.options.Pause) * (0.5 + random.Float64()))):
		case <-p.crowd.quit:
			return
		case <-ctx.Done():
			return
		}
		to := int64(0)
		if random.IntN(2) == 0 {
			to = p.crowd.people[random.IntN(len(p.crowd.people))].id
		}
		p.insist(ctx, fmt.Sprintf("%d-%d", p.number, n), to, random.IntN(4) == 0)
	}
}

// insist sends until the message is acknowledged.
func (p *person) insist(ctx context.Context, clientID string, to int64, byREST bool) {
	text := fmt.Sprintf("%s says %s", p.name, clientID)
	p.crowd.Checker.Sending(p.id, clientID, text, to)
	for try := 0; ctx.Err() == nil; try++ {
		if try > 0 {
			p.crowd.failed.Add(1)
		}
		var a answer
		if byREST {
			a = p.post(ctx, clientID, text, to)
		} else {
			a = p.sendFrame(ctx, clientID, text, to)
		}
		if a.err == nil {
			p.crowd.Checker.Acknowledged(p.id, clientID, a.receipt)
			return
		}
		byREST = try%2 == 1 // what one way does not take another may
		select {
		case <-time.After(max(a.retry, 50*time.Millisecond)):
		case <-ctx.Done():
		}
	}
}

func (p *person) post(ctx context.Context, clientID, text string, to int64) answer {
	path := fmt.Sprintf("/v1/rooms/%d/messages", p.crowd.options.Room)
	if to != 0 {
		path = fmt.Sprintf("/v1/users/%d/messages", to)
	}
	p.mu.Lock()
	token := p.token
	p.mu.Unlock()
	var out struct {
		ID           string `json:"id"`
		Conversation string `json:"conversation"`
		Seq          int64  `json:"seq"`
	}
	err := p.call(ctx, path, token, map[string]any{"msg": text, "clientId": clientID}, http.StatusCreated, &out)
	return answer{receipt: checker.Receipt{ID: out.ID, Conversation: out.Conversation, Seq: out.Seq}, err: err}
}

var errNotConnected = errors.New("not connected")

func (p *person) sendFrame(ctx context.Context, clientID, text string, to int64) answer {
	frame := map[string]any{"op": opRoom, "roomId": p.crowd.options.Room, "msg": text, "clientId": clientID}
	if to != 0 {
		frame = map[string]any{"op": opDirect, "toUserId": to, "msg": text, "clientId": clientID}
	}
	answered := make(chan answer, 1)
	p.mu.Lock()
	link := p.link
	p.waiting[clientID] = answered
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.waiting, clientID)
		p.mu.Unlock()
	}()
	if link == nil {
		return answer{err: errNotConnected}
	}
	if err := link.Send(frame); err != nil {
		return answer{err: err}
	}
	select {
	case a := <-answered:
		return a
	case <-time.After(Patience):
		return answer{err: errors.New("no acknowledgement")}
	case <-ctx.Done():
		return answer{err: ctx.Err()}
	}
}
