package rpc

import (
	"context"
	"reflect"
	"testing"
	"time"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/testwait"
	"gochat/observability"
)

// knowing is a task, or a logic, that has a record of message 7.
type knowing struct {
	admitting
	contract.Logic
	since time.Time
}

func (k knowing) record() *contract.TaskRecord {
	return &contract.TaskRecord{
		ConsumedAt: k.since, Attempt: 2, Handovers: 2, DoneAt: k.since, Failed: contract.Internal, Again: 1, Offline: true, GivenUp: true,
		Nodes:   []contract.NodeRecord{{Node: ref("connect-1"), PushedAt: k.since, Ends: contract.Ends{Written: 37, Slow: 1}, Had: 1, Code: contract.Unavailable, Kept: true}},
		Further: contract.FurtherNodes{Bound: 3, Ends: contract.Ends{Gone: 1}, Errors: 2},
	}
}

// task is knowing as a contract.Task.
type task struct{ knowing }

func (k task) Whereabouts(_ context.Context, r *contract.WhereaboutsRequest) (*contract.TaskWhereabouts, error) {
	if r.Message != 7 {
		return &contract.TaskWhereabouts{Since: k.since}, nil
	}
	return &contract.TaskWhereabouts{Since: k.since, Record: k.record()}, nil
}

func (k knowing) stored() *contract.LogicWhereabouts {
	return &contract.LogicWhereabouts{
		Since:  k.since,
		Stored: &contract.StoredMessage{ID: 7, Conversation: "room:1", Seq: 42, From: 3, FromName: "ann", CreatedAt: k.since, Traceparent: "t", WaitsInOutbox: true},
		Record: &contract.LogicRecord{AcceptedAt: k.since, Batch: 8, FirstPublishedAt: k.since, Published: 1, By: contract.PublishedBySweep},
	}
}

func (k knowing) Whereabouts(context.Context, *contract.WhereaboutsRequest) (*contract.LogicWhereabouts, error) {
	return k.stored(), nil
}

// inUTC makes every time of v one in UTC: the wire has moments, not places.
func inUTC(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			inUTC(v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			inUTC(v.Index(i))
		}
	case reflect.Struct:
		if moment, ok := v.Interface().(time.Time); ok {
			if v.CanSet() {
				v.Set(reflect.ValueOf(moment.UTC()))
			}
			return
		}
		for i := range v.NumField() {
			inUTC(v.Field(i))
		}
	}
}

// TestWhereabouts asks every node at once: each answers whole, and one that does not is named and keeps nobody waiting
// beyond the deadline, nor any other from answering.
func TestWhereabouts(t *testing.T) {
	known := knowing{since: time.UnixMicro(1_700_000_000_123_456).UTC()}
	logic := serve(t, ref("logic-1"), known, nil, observability.Discard())
	srv, err := NewServer(config(), observability.Discard().Log)
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.ServeTask(task{known}, observability.Discard()); err != nil {
		t.Fatal(err)
	}
	running, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Run(running, patience) }()
	t.Cleanup(func() { stop(); testwait.Receive(t, "the server ends", done) })
	one := Peer{Ref: ref("task-1"), Addr: srv.Addr()}
	mute, gone := silent(t, "task-2", swallow), dead(t, "task-3")

	clients := NewClients(config(), observability.Discard())
	tasks := clients.Task(func() []Peer { return []Peer{mute, one, gone} })
	logics := clients.Logic(func() []Peer { return []Peer{logic.peer} })
	t.Cleanup(func() { _, _ = tasks.Close(), logics.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	answers := tasks.Whereabouts(ctx, &contract.WhereaboutsRequest{Message: 7})
	if len(answers) != 3 || answers[0].Node != mute.Ref || answers[0].Err == nil || answers[1].Err != nil || answers[2].Err == nil || answers[2].Node != gone.Ref {
		t.Fatalf("got %+v, want the second answered, and the others named", answers)
	}
	inUTC(reflect.ValueOf(answers[1].Value))
	if want := (&contract.TaskWhereabouts{Since: known.since, Record: known.record()}); !reflect.DeepEqual(answers[1].Value, want) {
		t.Errorf("got %+v, want %+v", answers[1].Value.Record, want.Record)
	}
	from := logics.Whereabouts(t.Context(), &contract.WhereaboutsRequest{Message: 7})
	if len(from) != 1 || from[0].Err != nil || from[0].Node != logic.peer.Ref {
		t.Fatalf("got %+v", from)
	}
	inUTC(reflect.ValueOf(from[0].Value))
	if want := known.stored(); !reflect.DeepEqual(from[0].Value, want) {
		t.Errorf("got %+v, want %+v", from[0].Value, want)
	}
	if !from[0].Value.Record.CommittedAt.IsZero() {
		t.Error("a time that is not known comes as one that is")
	}
	if other := logicOn(t).Whereabouts(t.Context(), &contract.WhereaboutsRequest{Message: 7}); len(other) != 0 {
		t.Errorf("nobody is there, got %+v", other)
	}
}
