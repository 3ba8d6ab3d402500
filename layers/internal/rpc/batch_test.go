package rpc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/testwait"
	"gochat/observability"
)

// sender answers Send alone.
type sender struct {
	contract.Logic
	admitting
	send func(ctx context.Context, r *contract.SendRequest) (*contract.Receipt, error)
}

// admitting refuses nobody, and knows where nothing is.
type admitting struct{}

func (admitting) AdmitSends(int) (done func(), err error) { return func() {}, nil }

func (admitting) Whereabouts(context.Context, *contract.WhereaboutsRequest) (*contract.LogicWhereabouts, error) {
	return &contract.LogicWhereabouts{}, nil
}

func (s sender) Send(ctx context.Context, r *contract.SendRequest) (*contract.Receipt, error) {
	return s.send(ctx, r)
}

// TestSendsTravelTogether has many send at once: each gets its own answer, in its own trace, though few messages go.
func TestSendsTravelTogether(t *testing.T) {
	const n = 50
	var mu sync.Mutex
	inHand, most := 0, 0
	all := make(chan struct{})
	var meet sync.Once
	l := sender{send: func(ctx context.Context, r *contract.SendRequest) (*contract.Receipt, error) {
		mu.Lock()
		inHand++
		most = max(most, inHand)
		if inHand == n {
			meet.Do(func() { close(all) })
		}
		mu.Unlock()
		select { // none is answered before all are there: they are handled at the same time
		case <-all:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		switch {
		case r.Text == "refused":
			return nil, contract.Errorf(contract.Forbidden, "not you")
		case r.Text == "panic":
			panic("over one of them")
		}
		return &contract.Receipt{ID: contract.MessageID(r.To), TraceID: trace.SpanContextFromContext(ctx).TraceID().String()}, nil
	}}
	server := serve(t, contract.NodeRef{ID: "logic-1", Epoch: 1}, l, nil, observability.Discard())
	client := NewClients(config(), observability.Discard()).Logic(func() []Peer { return []Peer{server.peer} })
	defer func() { _ = client.Close() }()

	var calling sync.WaitGroup
	for i := 1; i <= n; i++ {
		calling.Go(func() {
			id := trace.TraceID{15: byte(i)}
			ctx, cancel := context.WithTimeout(trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{
				TraceID: id, SpanID: trace.SpanID{1}, TraceFlags: trace.FlagsSampled,
			})), patience)
			defer cancel()
			text := fmt.Sprint(i)
			switch i {
			case 7:
				text = "refused"
			case 8:
				text = "panic"
			}
			got, err := client.Send(ctx, &contract.SendRequest{From: 1, To: contract.UserID(i), Text: text})
			switch {
			case i == 7:
				if contract.CodeOf(err) != contract.Forbidden {
					t.Errorf("the refused one: %v", err)
				}
			case i == 8:
				if contract.CodeOf(err) != contract.Internal {
					t.Errorf("the one that panics: %v", err)
				}
			case err != nil:
				t.Errorf("send %d: %v", i, err)
			case got.ID != contract.MessageID(i) || got.TraceID != id.String():
				t.Errorf("send %d was answered %d in trace %s", i, got.ID, got.TraceID)
			}
		})
	}
	calling.Wait()
	if most != n {
		t.Errorf("at most %d were handled at once, want %d", most, n)
	}
	if got := server.requests.Load(); got > n/2 {
		t.Errorf("%d messages for %d calls", got, n)
	}
	eventually(t, "the lane ends when nothing is sent", func() bool {
		client.sends.mu.Lock()
		defer client.sends.mu.Unlock()
		return len(client.sends.lanes) == 0
	})
}

// TestWhenABatchGoes says how long what waits may still gather, when the last batch has just gone.
func TestWhenABatchGoes(t *testing.T) {
	for _, c := range []struct {
		name          string
		came, waiting int
		want          int
	}{
		{"nobody waits", 1, 0, 0},
		{"alone", 1, 1, 1},
		{"one of few", batchFew, 1, 1},
		{"one of many", batchFew + 1, 1, 0},
		{"many gather", 2 * batchFull, batchFull - 1, 0},
		{"enough have gathered", 2 * batchFull, batchFull, batchFull},
		{"too many for one", 2 * batchMost, 2 * batchMost, batchMost},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBatcher[int, int](nil, "")
			l := &lane[int, int]{waiting: make([]*ticket[int, int], c.waiting), unanswered: 1, went: time.Now().Add(time.Minute)}
			for range c.came {
				l.count(time.Now())
			}
			batch, wait, ended := b.take(Peer{}, l)
			if len(batch) != c.want || ended || (wait > 0) != (c.want == 0) || l.unanswered != 1+c.want {
				t.Errorf("%d go, the rest may wait for %v, ended %t; want %d", len(batch), wait, ended, c.want)
			}
		})
	}
	l, at := &lane[int, int]{}, time.Now()
	for _, step := range []struct {
		after time.Duration
		want  [2]int
	}{{0, [2]int{1, 0}}, {batchPause / 2, [2]int{2, 0}}, {batchPause, [2]int{1, 2}}, {batchPause, [2]int{1, 1}}, {2 * batchPause, [2]int{1, 0}}} {
		at = at.Add(step.after)
		if l.count(at); l.came != step.want {
			t.Errorf("%v later: %v have come, want %v", step.after, l.came, step.want)
		}
	}
}

func TestDeadlinesOfABatch(t *testing.T) {
	release := make(chan struct{})
	l := sender{send: func(ctx context.Context, r *contract.SendRequest) (*contract.Receipt, error) {
		if r.Text == "slow" {
			<-release
		}
		left, _ := ctx.Deadline()
		return &contract.Receipt{Seq: time.Until(left).Milliseconds()}, nil
	}}
	server := serve(t, contract.NodeRef{ID: "logic-1", Epoch: 1}, l, nil, observability.Discard())
	client := NewClients(config(), observability.Discard()).Logic(func() []Peer { return []Peer{server.peer} })
	defer func() { _ = client.Close() }()
	defer close(release)

	short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := client.Send(short, &contract.SendRequest{Text: "slow"}); contract.CodeOf(err) != contract.Unavailable {
		t.Errorf("a call whose time is up: %v", err)
	}
	// Two that travel together have each their own.
	long, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	short, cancel = context.WithTimeout(t.Context(), patience)
	defer cancel()
	batch := []*ticket[contract.SendRequest, contract.Receipt]{
		client.sends.ticket(long, &contract.SendRequest{Text: "quick"}), client.sends.ticket(short, &contract.SendRequest{Text: "quick"}),
	}
	client.sends.send(server.peer, batch)
	for i, want := range []time.Duration{time.Hour, patience} {
		reply, err := batch[i].wait(t.Context(), true)
		if err != nil {
			t.Fatal(err)
		}
		if left := time.Duration(reply.Value.Seq) * time.Millisecond; left < want/2 || left > want {
			t.Errorf("%v left of %v", left, want)
		}
	}
}

// One call that is too large is refused; those that travel with it are not.
func TestTooLargeInABatch(t *testing.T) {
	server := serve(t, contract.NodeRef{ID: "logic-1", Epoch: 1}, sender{send: func(context.Context, *contract.SendRequest) (*contract.Receipt, error) {
		return &contract.Receipt{Seq: 1}, nil
	}}, nil, observability.Discard())
	client := NewClients(config(), observability.Discard()).Logic(func() []Peer { return []Peer{server.peer} })
	defer func() { _ = client.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var batch []*ticket[contract.SendRequest, contract.Receipt]
	for i := range 5 {
		r := &contract.SendRequest{Text: "small"}
		if i == 2 {
			r.Text = strings.Repeat("x", maxPayload)
		}
		batch = append(batch, client.sends.ticket(ctx, r))
	}
	client.sends.send(server.peer, batch)
	for i, one := range batch {
		reply, err := one.wait(ctx, true)
		switch {
		case i == 2 && contract.CodeOf(err) != contract.TooLarge:
			t.Errorf("the large one: %v", err)
		case i != 2 && (err != nil || reply.Value.Seq != 1):
			t.Errorf("a small one: %v, %v", reply, err)
		}
	}
}

// full lets in as many as there are places.
type full struct {
	sender
	mu     sync.Mutex
	places int
}

func (f *full) AdmitSends(n int) (done func(), err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n > f.places {
		return nil, contract.RetryLater(contract.Unavailable, time.Minute, "full")
	}
	f.places -= n
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.places += n
	}, nil
}

// A batch for which there is no place is refused while those that have one are in hand, and when they are answered there
// is place again.
func TestBatchNotAdmitted(t *testing.T) {
	entered, release := make(chan struct{}, 10), make(chan struct{})
	l := &full{places: 4, sender: sender{send: func(ctx context.Context, _ *contract.SendRequest) (*contract.Receipt, error) {
		entered <- struct{}{}
		select {
		case <-release:
		case <-ctx.Done():
		}
		return &contract.Receipt{}, ctx.Err()
	}}}
	server := serve(t, ref("logic-1"), l, nil, observability.Discard())
	client := logicOn(t, server.peer)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	batch := func() (all []*ticket[contract.SendRequest, contract.Receipt]) {
		for range 3 {
			all = append(all, client.sends.ticket(ctx, &contract.SendRequest{}))
		}
		return all
	}
	first, second, third := batch(), batch(), batch()
	sent := make(chan struct{})
	go func() { defer close(sent); client.sends.send(server.peer, first) }()
	for range first {
		testwait.Receive(t, "the first are in hand", entered)
	}
	client.sends.send(server.peer, second)
	for _, one := range second {
		if reply, err := one.wait(ctx, true); err != nil || reply.Err == nil || reply.Err.RetryAfter != time.Minute {
			t.Errorf("got %+v and %v, want what was said of the batch", reply, err)
		}
	}
	close(release)
	testwait.Receive(t, "the first are answered", sent)
	client.sends.send(server.peer, third)
	for _, one := range append(first, third...) {
		if reply, err := one.wait(ctx, true); err != nil || reply.Err != nil {
			t.Errorf("one that had a place: %+v, %v", reply, err)
		}
	}
}

func TestSendAfterClose(t *testing.T) {
	client := NewClients(config(), observability.Discard()).Logic(func() []Peer { return []Peer{{Ref: contract.NodeRef{ID: "logic-1"}, Addr: "127.0.0.1:1"}} })
	_ = client.Close()
	if _, err := client.Send(t.Context(), &contract.SendRequest{}); !errors.Is(err, errClosed) {
		t.Errorf("got %v, want %v", err, errClosed)
	}
}
