package where

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/rpc"
)

// at is so many milliseconds after the message was accepted, at a time before which every node's records begin.
func at(ms int) time.Time { return begun.Add(time.Duration(ms) * time.Millisecond) }

var (
	begun    = time.Date(2026, 3, 1, 12, 0, 0, 123_000_000, time.UTC)
	recorded = begun.Add(-time.Minute)
)

// theLogics and theTasks answer as they are told.
type (
	theLogics []rpc.Answer[contract.LogicWhereabouts]
	theTasks  []rpc.Answer[contract.TaskWhereabouts]
)

func (l theLogics) Whereabouts(context.Context, *contract.WhereaboutsRequest) []rpc.Answer[contract.LogicWhereabouts] {
	return l
}

func (t theTasks) Whereabouts(context.Context, *contract.WhereaboutsRequest) []rpc.Answer[contract.TaskWhereabouts] {
	return t
}

func logic(n int, known contract.LogicWhereabouts) rpc.Answer[contract.LogicWhereabouts] {
	known.Since = recorded
	return rpc.Answer[contract.LogicWhereabouts]{Node: ref("logic", n), Value: &known}
}

func task(n int, r *contract.TaskRecord) rpc.Answer[contract.TaskWhereabouts] {
	return rpc.Answer[contract.TaskWhereabouts]{Node: ref("task", n), Value: &contract.TaskWhereabouts{Since: recorded, Record: r}}
}

// life is a task node that began then, has everything since, and nothing that is older than end.
func life(n, began, since, end int) rpc.Answer[contract.TaskWhereabouts] {
	return rpc.Answer[contract.TaskWhereabouts]{Node: ref("task", n), Value: &contract.TaskWhereabouts{Since: at(since), Began: at(began), End: at(end)}}
}

func ref(layer string, n int) contract.NodeRef {
	return contract.NodeRef{ID: contract.NodeID(fmt.Sprint(layer, "-", n)), Epoch: 1}
}

func inRoom(waits bool) *contract.StoredMessage {
	return &contract.StoredMessage{ID: 7, Conversation: "room:1", Seq: 42, From: 3, FromName: "alice", CreatedAt: at(0), WaitsInOutbox: waits,
		Traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
}

func private() *contract.StoredMessage {
	return &contract.StoredMessage{ID: 7, Conversation: "dm:3:17", Seq: 8, From: 3, FromName: "alice", To: 17, ToName: "bob\x1b[2J", CreatedAt: at(0)}
}

func accepted() *contract.LogicRecord {
	return &contract.LogicRecord{AcceptedAt: at(0), CommittedAt: at(2), Batch: 8}
}

func published(r *contract.LogicRecord, ms int) *contract.LogicRecord {
	r.FirstPublishedAt, r.LastPublishedAt, r.Published, r.By = at(ms), at(ms), 1, contract.PublishedAtOnce
	return r
}

func consumed(nodes ...contract.NodeRecord) *contract.TaskRecord {
	return &contract.TaskRecord{ConsumedAt: at(9), Attempt: 1, Handovers: 1, DoneAt: at(13), Nodes: nodes}
}

func pushed(n int, ends contract.Ends) contract.NodeRecord {
	return contract.NodeRecord{Node: ref("connect", n), PushedAt: at(10), AnsweredAt: at(12), Ends: ends}
}

var errAway = errors.New("away")

// TestAnswers: what the nodes know makes one answer, in JSON with a status, and in lines.
func TestAnswers(t *testing.T) {
	delivered := theLogics{logic(1, contract.LogicWhereabouts{Stored: inRoom(false), Record: published(accepted(), 3)})}
	toBob := theLogics{logic(1, contract.LogicWhereabouts{Stored: private(), Record: published(accepted(), 3)})}
	const head = "message 7 in room:1, seq 42, from alice (3), trace 0af7651916cd43dd8448eb211c80319c\n" +
		"  +0 ms  accepted by logic-1\n  +2 ms  committed with 7 others\n"
	for _, c := range []struct {
		name   string
		logics theLogics
		tasks  theTasks
		status int
		state  State
		lines  string // that the command prints
		fails  string // with what it ends
	}{
		{"delivered", delivered, theTasks{task(2, consumed(pushed(4, contract.Ends{Written: 37, Slow: 1}), pushed(5, contract.Ends{Queued: 2, Gone: 1})))},
			200, Delivered, head + "  +3 ms  published\n  +9 ms  consumed by task-2, attempt 1\n  +12 ms  connect-4: 37 written, 1 slow\n" +
				"  +12 ms  connect-5: 2 queued, 1 gone\n  +13 ms  acknowledged by task-2\ndelivered: 37 written, 2 queued, 1 slow, 1 gone\n", ""},
		{"to nobody", delivered, theTasks{task(2, consumed())}, 200, Nobody, "delivered to nobody: nobody was there\n", ""},
		{"offline", toBob, theTasks{task(2, &contract.TaskRecord{ConsumedAt: at(9), Attempt: 1, Handovers: 1, DoneAt: at(13), Offline: true,
			Nodes: []contract.NodeRecord{pushed(4, contract.Ends{Written: 1})}})},
			200, Offline, "  offline: 1\noffline: the addressee has no connection, and finds it in the history; 1 written\n", ""},
		{"a name that steers the terminal", toBob, theTasks{task(2, consumed())}, 200, Nobody, `message 7 in dm:3:17, seq 8, from alice (3), to "bob\x1b[2J" (17)` + "\n", ""},
		{"in the outbox", theLogics{logic(1, contract.LogicWhereabouts{Stored: inRoom(true), Record: accepted()})}, theTasks{task(2, nil)},
			200, Outbox, head + "waiting in the outbox: it is stored, and the queue does not have it\n", ""},
		{"published, its row not yet deleted", theLogics{logic(1, contract.LogicWhereabouts{Stored: inRoom(true), Record: published(accepted(), 3)})}, theTasks{task(2, nil)},
			200, Queued, head + "  +3 ms  published\nin the queue: published, and not consumed", ""},
		{"published by nobody who is left", theLogics{logic(2, contract.LogicWhereabouts{Stored: inRoom(false)})}, theTasks{task(2, nil)},
			200, Queued, "in the queue: ", ""},
		{"without a task", delivered, nil, 200, Queued, "  no task node is up: what became of the message after it was published is missing\n", ""},
		{"a task that does not answer", delivered, theTasks{{Node: ref("task", 3), Err: errAway}},
			200, Queued, "in the queue: published, and not consumed by a task node that answers\n  task-3 did not answer: what it knows is missing\n", ""},
		{"published by another, twice", theLogics{
			logic(1, contract.LogicWhereabouts{Stored: inRoom(false), Record: accepted()}),
			logic(2, contract.LogicWhereabouts{Stored: inRoom(false), Record: &contract.LogicRecord{FirstPublishedAt: at(11_000), LastPublishedAt: at(12_000), Published: 2, By: contract.PublishedBySweep}}),
		}, theTasks{task(2, nil)}, 200, Queued, head + "  +11.0 s  published by logic-2\n  +12.0 s  published for the 2nd time by logic-2, by the sweeper\n", ""},
		{"looked for", delivered, theTasks{task(2, &contract.TaskRecord{ConsumedAt: at(9), Attempt: 1, Handovers: 1})},
			200, Pushing, "being pushed: its receivers are looked for\n", ""},
		{"on its way", delivered, theTasks{task(2, &contract.TaskRecord{ConsumedAt: at(9), Attempt: 1, Handovers: 1, Nodes: []contract.NodeRecord{
			pushed(4, contract.Ends{Written: 1}), {Node: ref("connect", 5), PushedAt: at(10)}, {Node: ref("connect", 6)}}})},
			200, Pushing, "  +10 ms  connect-5: pushed, not answered\n  +12 ms  connect-4: 1 written\n  …       connect-6: waits for its turn\nbeing pushed to connect-5, connect-6; 1 written\n", ""},
		{"a late node", delivered, theTasks{task(2, consumed(pushed(4, contract.Ends{Written: 1}), contract.NodeRecord{Node: ref("connect", 5), PushedAt: at(10)}))},
			200, Pushing, "being pushed: connect-5 is late, the others have answered; 1 written\n", ""},
		{"kept", toBob, theTasks{task(2, consumed(contract.NodeRecord{Node: ref("connect", 5), PushedAt: at(10), AnsweredAt: at(12), Code: contract.Unavailable, Kept: true}))},
			200, Pushing, "  +12 ms  connect-5: does not answer, it is kept for it\n", ""},
		{"deferred", delivered, theTasks{task(2, consumed(contract.NodeRecord{Node: ref("connect", 5), PushedAt: at(10), AnsweredAt: at(12), Deferred: 1}))},
			200, Deferred, "deferred: the node fetches what was missing first; 1 deferred\n", ""},
		{"a node passed over", delivered, theTasks{task(2, consumed(contract.NodeRecord{Node: ref("connect", 5), PushedAt: at(10), AnsweredAt: at(12), Code: contract.Unavailable}))},
			200, Deferred, "  +12 ms  connect-5: passed over: unavailable\n", ""},
		{"given up", delivered, theTasks{task(2, &contract.TaskRecord{ConsumedAt: at(9), Attempt: 1, Handovers: 1, DoneAt: at(13), GivenUp: true,
			Nodes: []contract.NodeRecord{{Node: ref("connect", 5), PushedAt: at(10), AnsweredAt: at(12), Code: contract.TooLarge}}})},
			200, GivenUp, "given up for a node that did not take it", ""},
		{"handed back", delivered, theTasks{task(2, &contract.TaskRecord{ConsumedAt: at(9), Attempt: 2, Handovers: 2, DoneAt: at(13), Failed: contract.Internal})},
			200, Queued, "  +9 ms   consumed by task-2, attempt 2, for the 2nd time\n  +13 ms  handed back by task-2: internal\nin the queue: attempt 2 failed (internal), it is handed over again\n", ""},
		{"by two tasks, a node that died, and somebody who moved", toBob, theTasks{
			task(2, &contract.TaskRecord{ConsumedAt: at(20), Attempt: 2, Handovers: 1, DoneAt: at(30), Again: 1, Nodes: []contract.NodeRecord{
				{Node: ref("connect", 4), PushedAt: at(21), AnsweredAt: at(22), Code: contract.NotFound}, pushed(5, contract.Ends{Written: 1})}}),
			task(1, &contract.TaskRecord{ConsumedAt: at(9), Attempt: 1, Handovers: 1, DoneAt: at(13), Failed: contract.Unavailable}),
		}, 200, Delivered, "delivered: 1 written\n", ""},
		{"many nodes", delivered, theTasks{task(2, &contract.TaskRecord{ConsumedAt: at(9), Attempt: 1, Handovers: 1, DoneAt: at(13),
			Nodes: []contract.NodeRecord{pushed(4, contract.Ends{Written: 1})}, Further: contract.FurtherNodes{Bound: 9, Answers: 9, Ends: contract.Ends{Written: 90}}})},
			200, Delivered, "9 further nodes, 9 answers: 90 written\n", ""},
		{"the database away", theLogics{logic(1, contract.LogicWhereabouts{Away: true, Record: published(accepted(), 3)})}, theTasks{task(2, consumed(pushed(4, contract.Ends{Written: 1})))},
			200, Delivered, "message 7\n", ""},
		{"a logic node that does not answer", append(theLogics{{Node: ref("logic", 9), Err: errAway}}, delivered...), theTasks{task(2, consumed(pushed(4, contract.Ends{Written: 1})))},
			200, Delivered, "delivered: 1 written\n  logic-9 did not answer: what it knows is missing\n", ""},

		{"older than a task that began a moment ago", delivered, theTasks{task(1, nil), life(2, 9000, 9000, -3_600_000)},
			200, Unrecorded, head + "  +3 ms  published\nunrecorded: stored, published, and task-2 knows nothing from before 2026-03-01T12:00:09.123Z\n", ""},
		{"older than two tasks, one of which has filled its room since", delivered, theTasks{life(2, 9000, 9000, -3_600_000), life(3, 7000, 9500, -3_600_000)},
			200, Unrecorded, "and task-2 knows nothing from before 2026-03-01T12:00:09.123Z, task-3 knows nothing from before 2026-03-01T12:00:07.123Z\n", ""},
		{"in the outbox, and older than the task", theLogics{logic(1, contract.LogicWhereabouts{Stored: inRoom(true), Record: accepted()})}, theTasks{life(2, 9000, 9000, -3_600_000)},
			200, Outbox, "waiting in the outbox", ""},
		{"older than the task, and too old", delivered, theTasks{life(2, 9000, 9000, 8000)}, 404, Expired, head + "  +3 ms  published\n", "expired: "},
		{"passed by, with a task that began a moment ago", delivered, theTasks{life(1, -1000, 8000, -3_600_000), life(2, 9000, 9000, -3_600_000)},
			404, Expired, head + "  +3 ms  published\n", "expired: "},
		{"expired", theLogics{{Node: ref("logic", 1), Value: &contract.LogicWhereabouts{Stored: inRoom(false), Since: at(5000)}}},
			theTasks{{Node: ref("task", 2), Value: &contract.TaskWhereabouts{Since: at(9000)}}},
			404, Expired, "message 7 in room:1, seq 42, from alice (3)", "message 7: expired: it is stored, and what became of it is not on record any more: records go back to 2026-03-01T12:00:09.123Z"},
		{"forgotten by task alone", delivered, theTasks{{Node: ref("task", 2), Value: &contract.TaskWhereabouts{Since: at(9000)}}},
			404, Expired, head + "  +3 ms  published\n", "expired: "},
		{"old, and no task is up", theLogics{{Node: ref("logic", 1), Value: &contract.LogicWhereabouts{Stored: inRoom(false), Since: at(5000)}}}, nil, 404, Expired, "  no task node is up", "expired: "},
		{"no records", theLogics{{Node: ref("logic", 1), Value: &contract.LogicWhereabouts{Stored: inRoom(false)}}},
			theTasks{{Node: ref("task", 2), Value: &contract.TaskWhereabouts{}}},
			404, Expired, "  logic-1 keeps no records: record.messages is 0 there\n", "message 7: expired: it is stored, and no records are kept of what became of it"},
		{"unknown", theLogics{logic(1, contract.LogicWhereabouts{})}, theTasks{task(2, nil)}, 404, Unknown, "", "message 7: no message has this id"},
		{"no logic", nil, theTasks{task(2, nil)}, 503, "", "", "message 7: no logic node is up"},
		{"no logic that answers", theLogics{{Node: ref("logic", 9), Err: errAway}}, theTasks{task(2, consumed())}, 503, "", "",
			"message 7: no logic node answers: logic-9 did not answer: what it knows is missing"},
		{"the database away, and nothing on record", theLogics{logic(1, contract.LogicWhereabouts{Away: true})}, theTasks{task(2, nil)}, 503, "", "", "message 7: the database does not answer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			mux := http.NewServeMux()
			mux.Handle(Pattern, Handler(c.logics, c.tasks, slog.New(slog.DiscardHandler)))
			server := httptest.NewServer(mux)
			defer server.Close()
			status, body, err := get(t.Context(), server.URL+"/admin/v1/messages/7")
			if err != nil || status != c.status {
				t.Fatalf("status %d, %v, want %d: %s", status, err, c.status, body)
			}
			var a struct {
				Answer
				Code string
			}
			if err := json.Unmarshal(body, &a); err != nil {
				t.Fatal(err)
			}
			wantCode := map[State]string{Unknown: "not_found", Expired: "expired"}[c.state]
			if c.status == 503 {
				wantCode = "unavailable"
			}
			if a.Code != wantCode || c.status == 200 && a.State != c.state {
				t.Errorf("got code %q and state %q, want %q and %q", a.Code, a.State, wantCode, c.state)
			}
			var out bytes.Buffer
			err = Run(t.Context(), Options{Message: "7", Admin: server.URL}, &out)
			if plain(c.lines) == "" && out.Len() > 0 || !strings.Contains(plain(out.String()), plain(c.lines)) {
				t.Errorf("printed\n%s\nwant\n%s", out.String(), c.lines)
			}
			if (err != nil) != (c.fails != "") || err != nil && !strings.Contains(err.Error(), c.fails) {
				t.Errorf("got %v, want %q", err, c.fails)
			}
			out.Reset()
			if jsonErr := Run(t.Context(), Options{Message: "7", Admin: server.URL, JSON: true}, &out); (jsonErr == nil) != (err == nil) || out.String() != string(body) {
				t.Errorf("as JSON: %v\n%s\nwant\n%s", jsonErr, out.String(), body)
			}
		})
	}
}

// plain has one space where there are several: columns are as wide as what is in them.
func plain(s string) string {
	for strings.Contains(s, "   ") {
		s = strings.ReplaceAll(s, "   ", "  ")
	}
	return s
}

// TestTotals adds up all nodes of all tasks.
func TestTotals(t *testing.T) {
	a, err := ask(t.Context(), theLogics{logic(1, contract.LogicWhereabouts{Stored: inRoom(false)})}, theTasks{
		task(1, &contract.TaskRecord{ConsumedAt: at(9), Attempt: 1, Handovers: 1, Offline: true, Nodes: []contract.NodeRecord{pushed(4, contract.Ends{Written: 1, Queued: 2, Slow: 3, Gone: 4}),
			{Node: ref("connect", 6), AnsweredAt: at(10), Code: contract.NotFound}, {Node: ref("connect", 7), AnsweredAt: at(10), Code: contract.Unavailable}}}),
		task(2, &contract.TaskRecord{ConsumedAt: at(20), Attempt: 2, Handovers: 1, DoneAt: at(30),
			Nodes:   []contract.NodeRecord{{Node: ref("connect", 5), AnsweredAt: at(22), Ends: contract.Ends{Written: 10}, Had: 1, Deferred: 2, Absent: 3}},
			Further: contract.FurtherNodes{Bound: 3, Answers: 3, Ends: contract.Ends{Written: 100}, Errors: 1}}),
	}, 7)
	if err != nil {
		t.Fatal(err)
	}
	want := Totals{Counts: Counts{Written: 111, Queued: 2, Slow: 3, Gone: 4, Had: 1, Deferred: 2, Absent: 3}, Errors: 2}
	if a.Totals != want {
		t.Errorf("got %+v, want %+v", a.Totals, want)
	}
}

// TestIDs: what is no id is answered 400, and is a mistake on the command line.
func TestIDs(t *testing.T) {
	mux := http.NewServeMux()
	mux.Handle(Pattern, Handler(theLogics{logic(1, contract.LogicWhereabouts{})}, theTasks{}, slog.New(slog.DiscardHandler)))
	server := httptest.NewServer(mux)
	defer server.Close()
	for _, id := range []string{"0", "-1", "+1", "01", "x", "1.5", "9223372036854775808", "%20", strings.Repeat("1", 500)} {
		status, body, err := get(t.Context(), server.URL+path+id)
		if err != nil || status != http.StatusBadRequest || !strings.Contains(string(body), `"bad_request"`) || len(body) > 500 {
			t.Errorf("%.20q: status %d, %v: %s", id, status, err, body)
		}
		if usage := (*UsageError)(nil); !errors.As(Run(t.Context(), Options{Message: id, Admin: server.URL}, nil), &usage) {
			t.Errorf("%.20q is no mistake", id)
		}
	}
	if status, _, err := get(t.Context(), server.URL+path+"9223372036854775807"); err != nil || status != http.StatusNotFound {
		t.Errorf("the highest id: status %d, %v, want 404", status, err)
	}
}

// TestNotAnAdmin: what does not answer, or knows nothing of messages, is said to be so.
func TestNotAnAdmin(t *testing.T) {
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	for admin, want := range map[string]string{other.URL: "answers 404: it does not know where messages are", gone.URL: "ask where message 7 is"} {
		err := Run(t.Context(), Options{Message: "7", Admin: admin}, nil)
		if usage := (*UsageError)(nil); err == nil || errors.As(err, &usage) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", admin, err, want)
		}
	}
	for _, admin := range []string{"", "127.0.0.1:9100", "ftp://x", "http://"} {
		if usage := (*UsageError)(nil); !errors.As(Run(t.Context(), Options{Message: "7", Admin: admin}, nil), &usage) {
			t.Errorf("%q is no mistake", admin)
		}
	}
}
