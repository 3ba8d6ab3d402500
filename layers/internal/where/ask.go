package where

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/ids"
	"gochat/layers/internal/rpc"
)

// Logics and Tasks are all nodes of their layer, asked at once.
type (
	Logics interface {
		Whereabouts(context.Context, *contract.WhereaboutsRequest) []rpc.Answer[contract.LogicWhereabouts]
	}
	Tasks interface {
		Whereabouts(context.Context, *contract.WhereaboutsRequest) []rpc.Answer[contract.TaskWhereabouts]
	}
)

// askLimit is how long a node that does not answer is waited for.
const askLimit = 3 * time.Second

// found is what the nodes have answered.
type found struct {
	*Answer
	stored *contract.StoredMessage
	away   bool // no database has answered

	covered   bool     // the records of every task node that has answered go back to when the message was made
	forgotten bool     // those of one may have had it, or it is too old
	younger   []string // the nodes whose records began after it was made, in words; the others cover it, unless forgotten
	silent    int      // that have not
	published bool
}

// ask answers where the message is; Expired and Unknown are states, too. Unavailable if no logic node answers, or if
// nothing is known while the database is away.
func ask(ctx context.Context, logics Logics, tasks Tasks, id contract.MessageID) (*Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	request := &contract.WhereaboutsRequest{Message: id}
	fromTasks := make(chan []rpc.Answer[contract.TaskWhereabouts], 1)
	go func() { fromTasks <- tasks.Whereabouts(ctx, request) }() // ends with ctx
	fromLogics := logics.Whereabouts(ctx, request)

	f := &found{Answer: &Answer{ID: id.String(), CreatedAt: ids.Time(id), Logic: []LogicStep{}, Task: []TaskStep{}}, away: true, covered: true}
	answered := f.addLogics(fromLogics)
	f.addTasks(<-fromTasks)
	switch {
	case len(fromLogics) == 0:
		return nil, contract.RetryLater(contract.Unavailable, time.Second, "no logic node is up")
	case !answered:
		return nil, contract.RetryLater(contract.Unavailable, time.Second, "no logic node answers: %s", strings.Join(f.Missing, "; "))
	case f.stored == nil && f.away && len(f.Logic)+len(f.Task) == 0:
		return nil, contract.RetryLater(contract.Unavailable, time.Second, "the database does not answer, and no node has the message on record")
	}
	f.conclude()
	return f.Answer, nil
}

func (f *found) missing(format string, args ...any) {
	f.Missing = append(f.Missing, fmt.Sprintf(format, args...))
}

// since takes note of how far a node's records go back.
func (f *found) since(node contract.NodeRef, t time.Time) {
	if t.IsZero() {
		f.missing("%s keeps no records: record.messages is 0 there", node.ID)
		return
	}
	if t.After(f.RecordsSince) {
		f.RecordsSince = t
	}
}

// addLogics reports whether any has answered.
func (f *found) addLogics(answers []rpc.Answer[contract.LogicWhereabouts]) (answered bool) {
	for _, a := range answers {
		if a.Err != nil {
			f.missing("%s did not answer: what it knows is missing", a.Node.ID)
			continue
		}
		answered = true
		f.since(a.Node, a.Value.Since)
		f.away = f.away && a.Value.Away
		if a.Value.Stored != nil && f.stored == nil {
			f.store(a.Value.Stored)
		}
		if r := a.Value.Record; r != nil {
			f.Logic = append(f.Logic, LogicStep{
				Node: string(a.Node.ID), AcceptedAt: r.AcceptedAt, CommittedAt: r.CommittedAt, Batch: r.Batch,
				PublishedAt: r.FirstPublishedAt, LastPublishedAt: r.LastPublishedAt, Published: r.Published, PublishedBecause: string(r.By),
			})
			f.published = f.published || r.Published > 0
		}
	}
	if answered && f.away {
		f.missing("the database does not answer: who sent it, where, and whether it is in the outbox is missing")
	}
	slices.SortStableFunc(f.Logic, func(a, b LogicStep) int { return a.begun().Compare(b.begun()) })
	return answered
}

// begun is the first that is known of what the node has done.
func (s *LogicStep) begun() time.Time {
	if s.AcceptedAt.IsZero() {
		return s.PublishedAt
	}
	return s.AcceptedAt
}

func (f *found) store(m *contract.StoredMessage) {
	f.stored = m
	f.Conversation, f.Seq, f.CreatedAt, f.InOutbox = string(m.Conversation), m.Seq, m.CreatedAt, m.WaitsInOutbox
	f.From = &User{int64(m.From), m.FromName}
	if m.To != 0 {
		f.To = &User{int64(m.To), m.ToName}
	}
	if parts := strings.Split(m.Traceparent, "-"); len(parts) == 4 { // as W3C has it: logic has written it
		f.TraceID = parts[1]
	}
}

func (f *found) addTasks(answers []rpc.Answer[contract.TaskWhereabouts]) {
	if len(answers) == 0 {
		f.missing("no task node is up: what became of the message after it was published is missing")
		f.covered = f.published // it would be long consumed, were it not on logic's records
		f.forgotten = !f.covered
	}
	for _, a := range answers {
		if a.Err != nil {
			f.missing("%s did not answer: what it knows is missing", a.Node.ID)
			f.silent++
			continue
		}
		f.since(a.Node, a.Value.Since)
		switch made := f.made(); {
		case !a.Value.Since.IsZero() && !a.Value.Since.After(made):
		case !a.Value.Since.IsZero() && a.Value.Began.After(made) && !a.Value.End.After(made):
			f.covered = false
			f.younger = append(f.younger, fmt.Sprintf("%s knows nothing from before %s", a.Node.ID, a.Value.Began.Format(time.RFC3339Nano)))
		default:
			f.covered, f.forgotten = false, true
		}
		if r := a.Value.Record; r != nil {
			f.Task = append(f.Task, taskStep(a.Node, r))
		}
	}
	slices.SortStableFunc(f.Task, func(a, b TaskStep) int { return a.ConsumedAt.Compare(b.ConsumedAt) })
	for i := range f.Task {
		f.total(&f.Task[i])
	}
}

// made is the latest time that is known at which the message was surely not yet consumed.
func (f *found) made() time.Time {
	made := f.CreatedAt
	for _, l := range f.Logic {
		if l.CommittedAt.After(made) {
			made = l.CommittedAt
		}
	}
	return made
}

func taskStep(node contract.NodeRef, r *contract.TaskRecord) TaskStep {
	s := TaskStep{
		Node: string(node.ID), ConsumedAt: r.ConsumedAt, Attempt: r.Attempt, Handovers: r.Handovers, DoneAt: r.DoneAt, HandedBack: string(r.Failed),
		Again: r.Again, Offline: r.Offline, GivenUp: r.GivenUp, Nodes: []NodeStep{},
	}
	for _, n := range r.Nodes {
		s.Nodes = append(s.Nodes, NodeStep{
			Node: string(n.Node.ID), PushedAt: n.PushedAt, AnsweredAt: n.AnsweredAt, Counts: counts(n.Ends, n.Had, n.Deferred, n.Absent),
			Code: string(n.Code), Kept: n.Kept,
		})
	}
	if b := r.Further; b.Bound > 0 || b.Answers > 0 {
		s.Further = &FurtherStep{Bound: b.Bound, Answers: b.Answers, Counts: counts(b.Ends, b.Had, b.Deferred, b.Absent), Errors: b.Errors}
	}
	return s
}

func counts(e contract.Ends, had, deferred, absent int) Counts {
	return Counts{Written: e.Written, Queued: e.Queued, Slow: e.Slow, Gone: e.Gone, Had: had, Deferred: deferred, Absent: absent}
}

// total adds a step to the totals, of which the latest one's offline counts.
func (f *found) total(s *TaskStep) {
	for i := range s.Nodes {
		f.Totals.add(s.Nodes[i].Counts)
		if s.Nodes[i].failed() {
			f.Totals.Errors++
		}
	}
	if s.Further != nil {
		f.Totals.add(s.Further.Counts)
		f.Totals.Errors += s.Further.Errors
	}
	f.Totals.Offline = 0
	if s.Offline {
		f.Totals.Offline = 1
	}
}

// conclude says the state.
func (f *found) conclude() {
	if f.stored == nil && !f.away && len(f.Logic)+len(f.Task) == 0 {
		f.State, f.Says = Unknown, "no message has this id"
		return
	}
	if n := len(f.Task); n > 0 {
		f.ofTask(&f.Task[n-1])
		return
	}
	switch {
	case f.InOutbox && !f.published:
		f.State, f.Says = Outbox, "waiting in the outbox: it is stored, and the queue does not have it"
	case f.covered:
		f.State, f.Says = Queued, "in the queue: published, and not consumed, unless by a task node that is gone"
		if f.silent > 0 {
			f.Says = "in the queue: published, and not consumed by a task node that answers"
		}
	case !f.forgotten:
		f.State, f.Says = Unrecorded, "unrecorded: stored, published, and "+strings.Join(f.younger, ", ")
	default:
		f.State, f.Says = Expired, "expired: "+f.sinceWords()
	}
}

func (f *found) sinceWords() string {
	if f.RecordsSince.IsZero() {
		return "it is stored, and no records are kept of what became of it"
	}
	return "it is stored, and what became of it is not on record any more: records go back to " + f.RecordsSince.Format(time.RFC3339Nano)
}

// ofTask says the state by what the task that had it last has done.
func (f *found) ofTask(s *TaskStep) {
	waiting, kept := s.waiting()
	what := f.Totals.reached()
	switch {
	case s.DoneAt.IsZero() && len(s.Nodes) == 0:
		f.State, f.Says = Pushing, "being pushed: its receivers are looked for"
	case s.HandedBack != "":
		f.State, f.Says = Queued, fmt.Sprintf("in the queue: attempt %d failed (%s), it is handed over again", s.Attempt, s.HandedBack)
	case len(waiting) > 0 && s.DoneAt.IsZero():
		f.State, f.Says = Pushing, "being pushed to "+strings.Join(waiting, ", ")
	case len(waiting) > 0:
		f.State, f.Says = Pushing, fmt.Sprintf("being pushed: %s %s late, the others have answered", strings.Join(waiting, ", "), plural(len(waiting), "is", "are"))
	case len(kept) > 0:
		f.State, f.Says = Pushing, fmt.Sprintf("kept for %s until it answers again", strings.Join(kept, ", "))
	case s.DoneAt.IsZero():
		f.State, f.Says = Pushing, "being pushed: every node so far has answered"
	case s.Offline:
		f.State, f.Says = Offline, "offline: the addressee has no connection, and finds it in the history"
	case s.GivenUp:
		f.State, f.Says = GivenUp, "given up for a node that did not take it: the node finds it by comparing heads, its receivers by a resume"
	case s.deferred():
		f.State, f.Says = Deferred, "deferred: the node fetches what was missing first"
	case s.passedOver():
		f.State, f.Says = Deferred, "deferred: a node was passed over, and fetches it when it finds that it missed it"
	case what == "":
		f.State, f.Says = Nobody, "delivered to nobody: nobody was there"
	default:
		f.State, f.Says = Delivered, "delivered: "+what
	}
	if f.State != Delivered && what != "" {
		f.Says += "; " + what
	}
}

// waiting are the nodes that have not answered, and those for which the message is kept.
func (s *TaskStep) waiting() (waiting, kept []string) {
	for i := range s.Nodes {
		switch n := &s.Nodes[i]; {
		case n.Kept:
			kept = append(kept, n.Node)
		case n.AnsweredAt.IsZero():
			waiting = append(waiting, n.Node)
		}
	}
	if s.Further != nil && s.Further.Answers < s.Further.Bound {
		waiting = append(waiting, fmt.Sprintf("%d further", s.Further.Bound-s.Further.Answers))
	}
	return waiting, kept
}

// failed reports whether the push was given up. A life of a node that has ended is no failure: its people are gone, or
// under another one.
func (n *NodeStep) failed() bool { return n.Code != "" && n.Code != string(contract.NotFound) }

// passedOver reports whether the room of some node has not got the message.
func (s *TaskStep) passedOver() bool {
	return s.Further != nil && s.Further.Errors > 0 || slices.ContainsFunc(s.Nodes, func(n NodeStep) bool { return n.failed() })
}

func (s *TaskStep) deferred() bool {
	return s.Further != nil && s.Further.Deferred > 0 || slices.ContainsFunc(s.Nodes, func(n NodeStep) bool { return n.Deferred > 0 })
}

// reached is words but for what is only of a node: who is not on it.
func (c Counts) reached() string {
	c.Absent = 0
	return c.words()
}

// words are the counts that are not zero, as the ledger calls them.
func (c Counts) words() string {
	var words []string
	for _, w := range []struct {
		n    int
		word string
	}{
		{c.Written, "written"}, {c.Queued, "queued"}, {c.Slow, "slow"}, {c.Gone, "gone"}, {c.Had, "had before"}, {c.Deferred, "deferred"}, {c.Absent, "absent"},
	} {
		if w.n > 0 {
			words = append(words, fmt.Sprint(w.n, " ", w.word))
		}
	}
	return strings.Join(words, ", ")
}

func plural(n int, one, more string) string {
	if n == 1 {
		return one
	}
	return more
}
