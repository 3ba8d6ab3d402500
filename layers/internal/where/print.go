package where

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// step is a line, at a time; zero if that is not known.
type step struct {
	at   time.Time
	says string
}

// show says the answer in lines: what the message is, what happened when, counted from its acceptance, and where it is.
func show(out io.Writer, a *Answer) error {
	var b strings.Builder
	b.WriteString(a.head() + "\n")
	steps := a.steps()
	from := a.accepted()
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, s := range steps {
		fmt.Fprintf(t, "  %s\t%s\n", since(from, s.at), s.says)
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	if a.Totals.Offline > 0 {
		fmt.Fprintf(&b, "  offline: %d\n", a.Totals.Offline)
	}
	b.WriteString(a.Says + "\n")
	for _, m := range a.Missing {
		b.WriteString("  " + m + "\n")
	}
	if _, err := io.WriteString(out, b.String()); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// head names the message.
func (a *Answer) head() string {
	words := []string{"message " + a.ID}
	if a.Conversation != "" {
		words[0] += " in " + a.Conversation
		words = append(words, fmt.Sprint("seq ", a.Seq))
	}
	if a.From != nil {
		words = append(words, "from "+a.From.words())
	}
	if a.To != nil {
		words = append(words, "to "+a.To.words())
	}
	if a.TraceID != "" {
		words = append(words, "trace "+a.TraceID)
	}
	return strings.Join(words, ", ")
}

// words are safe to print: a name is what somebody has chosen, and is quoted if it has more than plain letters.
func (u *User) words() string {
	name := u.Name
	if quoted := strconv.Quote(name); quoted != `"`+name+`"` {
		name = quoted
	}
	return fmt.Sprintf("%s (%d)", name, u.ID)
}

// accepted is when the message was accepted, as exactly as is known.
func (a *Answer) accepted() time.Time {
	for i := range a.Logic {
		if at := a.Logic[i].AcceptedAt; !at.IsZero() {
			return at
		}
	}
	return a.CreatedAt
}

func (a *Answer) steps() []step {
	var steps []step
	add := func(at time.Time, format string, args ...any) {
		steps = append(steps, step{at, fmt.Sprintf(format, args...)})
	}
	for i := range a.Logic {
		l := &a.Logic[i]
		if !l.AcceptedAt.IsZero() {
			add(l.AcceptedAt, "accepted by %s", l.Node)
			if others := l.Batch - 1; others > 0 {
				add(l.CommittedAt, "committed with %d %s", others, plural(others, "other", "others"))
			} else {
				add(l.CommittedAt, "committed alone")
			}
		}
		if l.Published > 0 {
			add(l.PublishedAt, "published%s", l.publishedBy(l.Published == 1))
		}
		if l.Published > 1 {
			add(l.LastPublishedAt, "published for the %s time%s", ordinal(l.Published), l.publishedBy(true))
		}
	}
	for i := range a.Task {
		steps = append(steps, a.Task[i].steps()...)
	}
	// What is not known yet comes last.
	slices.SortStableFunc(steps, func(x, y step) int {
		if x.at.IsZero() != y.at.IsZero() {
			return cmp.Compare(y.at.Unix(), x.at.Unix())
		}
		return x.at.Compare(y.at)
	})
	return steps
}

// publishedBy says which node has published, if it is not the one that accepted, and why, if that was not the commit.
func (l *LogicStep) publishedBy(last bool) string {
	words := ""
	if l.AcceptedAt.IsZero() {
		words = " by " + l.Node
	}
	if last && l.PublishedBecause != "commit" {
		words += map[string]string{"outbox": ", from the outbox", "sweeper": ", by the sweeper"}[l.PublishedBecause]
	}
	return words
}

func (t *TaskStep) steps() []step {
	again := ""
	if t.Handovers > 1 {
		again = fmt.Sprintf(", for the %s time", ordinal(t.Handovers))
	}
	steps := []step{{t.ConsumedAt, fmt.Sprintf("consumed by %s, attempt %d%s", t.Node, t.Attempt, again)}}
	for i := range t.Nodes {
		n := &t.Nodes[i]
		at := n.AnsweredAt
		if at.IsZero() {
			at = n.PushedAt
		}
		steps = append(steps, step{at, n.Node + ": " + n.words()})
	}
	if f := t.Further; f != nil {
		words := f.Counts.words()
		if f.Errors > 0 {
			words = join(words, fmt.Sprintf("%d given up", f.Errors))
		}
		steps = append(steps, step{t.DoneAt, fmt.Sprintf("%d further nodes, %d answers: %s", f.Bound, f.Answers, words)})
	}
	if t.Again > 0 {
		steps = append(steps, step{t.DoneAt, "users whom no node had any more were looked for again"})
	}
	switch {
	case t.HandedBack != "":
		steps = append(steps, step{t.DoneAt, "handed back by " + t.Node + ": " + t.HandedBack})
	case !t.DoneAt.IsZero():
		steps = append(steps, step{t.DoneAt, "acknowledged by " + t.Node})
	}
	return steps
}

// words say what became of the message on the node.
func (n *NodeStep) words() string {
	counted := n.Counts.words()
	state := ""
	switch {
	case n.Kept:
		state = "does not answer, it is kept for it"
	case n.PushedAt.IsZero() && n.AnsweredAt.IsZero():
		state = "waits for its turn"
	case n.AnsweredAt.IsZero():
		state = "pushed, not answered"
	case n.Code == "not_found":
		state = "has died"
	case n.Code != "":
		state = "passed over: " + n.Code
	case counted == "":
		state = "nobody was there"
	}
	return join(counted, state)
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + ", " + b
}

// since is how long after its acceptance; empty if the time is not known.
func since(from, at time.Time) string {
	if at.IsZero() {
		return "…"
	}
	d := at.Sub(from)
	switch abs := max(d, -d); {
	case abs < 10*time.Second:
		return fmt.Sprintf("%+d ms", d.Round(time.Millisecond).Milliseconds())
	default:
		return fmt.Sprintf("%+.1f s", d.Seconds())
	}
}

func ordinal(n int) string {
	switch {
	case n%100 >= 11 && n%100 <= 13:
	case n%10 == 1:
		return fmt.Sprint(n, "st")
	case n%10 == 2:
		return fmt.Sprint(n, "nd")
	case n%10 == 3:
		return fmt.Sprint(n, "rd")
	}
	return fmt.Sprint(n, "th")
}
