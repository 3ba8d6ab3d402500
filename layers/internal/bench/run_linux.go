package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"gochat/layers/internal/contract"
)

// runner is one run.
type runner struct {
	o        Options
	progress io.Writer
	targets  *targets
	rest     *rest
	accounts []account
	loop     *loop
	report   *Report
}

const (
	spareFiles = 64                     // of this process, besides its connections
	busy       = 0.8                    // the share of a core above which the one goroutine may be what is measured
	hurry      = 2 * time.Second        // for what is on its way when a run is interrupted
	settle     = 300 * time.Millisecond // between the last connection and the first message: counts of the room are pushed then
)

func run(ctx context.Context, o Options, progress io.Writer) (report *Report, err error) {
	r := &runner{o: o, progress: progress, report: &Report{
		Scenario: o.Scenario, Transport: o.Transport, Started: time.Now().UTC(), Load: o.load(), Connections: Connections{Wanted: o.connections()},
	}}
	if r.targets, err = resolve(ctx, &o); err != nil {
		return nil, err
	}
	files, err := openFiles()
	if err != nil {
		return nil, err
	}
	if err := fit(o.connections(), files); err != nil {
		return nil, err
	}
	if _, err := usages(o.Processes); err != nil {
		return nil, &UsageError{fmt.Errorf("--pid: %w", err)}
	}
	if err := writable(o.JSON); err != nil {
		return nil, &UsageError{fmt.Errorf("--json: %w", err)}
	}
	if r.loop, err = newLoop(ctx, o.Transport, o.Connecting); err != nil {
		return nil, err
	}
	defer r.loop.close()
	defer r.loop.wakeOn(ctx)()
	r.rest = newREST(o.API, o.Logins)
	defer r.rest.close()
	r.say("logging %d users in", o.users())
	r.accounts, err = r.rest.logIn(ctx, o.UserPrefix, o.Password, o.users(), o.Logins)
	defer r.logOut(ctx)
	if err == nil {
		err = r.scenario(ctx)
	} else if ctx.Err() == nil {
		return nil, fmt.Errorf("log in: %w", err)
	}
	if r.report.Interrupted = ctx.Err() != nil; err != nil && !r.report.Interrupted {
		r.report.Faults = append(r.report.Faults, err.Error()) // no reason to lose what was measured before
	}
	t := &r.loop.totals
	c := &r.report.Connections
	c.Failed, c.Answers, c.Errors, c.Closes, c.Dial = t.failed, t.pings, t.errors, t.closes, r.loop.dials.latency()
	r.report.judge()
	return r.report, nil
}

// fit fails if a process that may have so many files open cannot have the connections.
func fit(connections, files int) error {
	most := files - spareFiles
	if connections <= most {
		return nil
	}
	if most <= 0 {
		return &UsageError{fmt.Errorf("%d connections: raise ulimit -n, which is %d", connections, files)}
	}
	processes := (connections + most - 1) / most
	return &UsageError{fmt.Errorf("%d connections: this process may have %d at most, since ulimit -n is %d: raise it, or run %d processes at once, "+
		"each with its part of the connections, another --user-prefix, and --sources %d or more", connections, most, files, processes, processes)}
}

// writable fails if the file for the report could not be written: to know that after the run is too late.
func writable(path string) error {
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

func (r *runner) scenario(ctx context.Context) error {
	switch r.o.Scenario {
	case Idle:
		return r.idle(ctx)
	case Churn:
		return r.churn(ctx)
	case Private:
		return r.private(ctx)
	case Slow:
		return r.slow(ctx)
	}
	return r.rooms(ctx)
}

// load names the options that make the load.
func (o *Options) load() map[string]any {
	l := map[string]any{"connections": o.connections(), "users": o.users(), "for": o.For.String()}
	if o.sends() {
		l["rate"], l["size"] = o.Rate, o.Size
		if o.Scenario != Private {
			l["members"], l["senders"] = o.Members, o.Senders
		}
	}
	if o.Scenario == Rooms {
		l["rooms"] = o.Rooms
	}
	if o.Scenario == Slow {
		l["silent"] = o.Silent
	}
	return l
}

func (r *runner) say(format string, args ...any) {
	_, _ = fmt.Fprintf(r.progress, format+"\n", args...) // nobody may be there to read it
}

// patience is how long to wait for something: not long once ctx has ended.
func (r *runner) patience(ctx context.Context, usual time.Duration) time.Duration {
	if ctx.Err() != nil {
		return min(usual, hurry)
	}
	return usual
}

// logOut ends the sessions: the next run makes its own.
func (r *runner) logOut(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.patience(ctx, 10*time.Second))
	defer cancel()
	var work errgroup.Group
	work.SetLimit(r.o.Logins)
	for _, a := range r.accounts {
		if a.Token != "" {
			work.Go(func() error { return r.rest.logOut(ctx, a) })
		}
	}
	if err := work.Wait(); err != nil {
		r.say("sessions are left over: %v", err)
	}
}

// connect makes a connection of the i-th account for each i below n that is not made yet, and waits for them.
func (r *runner) connect(ctx context.Context, n int, room func(i int) contract.RoomID) error {
	for i := len(r.loop.conns); i < n; i++ {
		r.loop.add(r.targets.peer(i, r.o.Transport, r.accounts[i%len(r.accounts)].Token, room(i)))
	}
	return r.open(ctx)
}

// open dials all connections that are not up and notes how that went.
func (r *runner) open(ctx context.Context) error {
	l, began := r.loop, r.loop.now()
	l.each = func() { r.say("%d of %d connections are up, %d failed", l.up, len(l.conns), l.totals.failed) }
	defer func() { l.each = nil }()
	err := l.open(max(r.o.Drain, time.Second), func() bool { return ctx.Err() != nil })
	c := &r.report.Connections
	c.Up, c.Took = l.up, max(c.Took, (l.now()-began).Seconds())
	return err
}

// reading is what had been used at a moment.
type reading struct {
	at        time.Duration
	processes []usage // nil if they could not be read
	own       time.Duration
}

func (r *runner) read(of []Process) (reading, error) {
	own, err := ownCPU()
	if err != nil {
		return reading{}, err
	}
	processes, err := usages(of)
	if errors.Is(err, errEnded) {
		if !slices.Contains(r.report.Faults, err.Error()) {
			r.report.Faults = append(r.report.Faults, err.Error())
		}
	} else if err != nil {
		return reading{}, err
	}
	return reading{r.loop.now(), processes, own}, nil
}

// watch is what processes use from a moment on. Who makes one ends it.
type watch struct {
	runner *runner
	of     []Process
	before reading
	end    func() (most []int64)
}

func (r *runner) watch(of []Process) (*watch, error) {
	before, err := r.read(of)
	if err != nil {
		return nil, err
	}
	return &watch{r, of, before, peaks(of, time.Second)}, nil
}

// use is what was used until now; the deliveries were done by then, and all that was sent, at the moment done.
func (w *watch) use(deliveries int64, done time.Duration) (Use, error) {
	most := w.end()
	after, err := w.runner.read(w.of)
	if err != nil {
		return Use{}, err
	}
	each := func(cpu time.Duration) float64 {
		if deliveries == 0 {
			return 0
		}
		return cpu.Seconds() * 1e6 / float64(deliveries)
	}
	own := after.own - w.before.own
	u := Use{
		Generator: own.Seconds(), GenEach: each(own), Wall: (after.at - w.before.at).Seconds(),
		// A wait for what does not come is no leisure.
		GenShare: own.Seconds() / max((done-w.before.at).Seconds(), 1e-9),
	}
	if u.GenShare > busy {
		w.runner.note("the load tool has used %.0f %% of a core: times may be its own", 100*u.GenShare)
	}
	if w.before.processes == nil || after.processes == nil {
		return u, nil
	}
	var all time.Duration
	for i, p := range w.of {
		was, is := w.before.processes[i], after.processes[i]
		all += is.cpu - was.cpu
		u.Processes = append(u.Processes, ProcessUse{
			Name: p.Name, CPU: (is.cpu - was.cpu).Seconds(), Each: each(is.cpu - was.cpu), RSS: is.rss, Peak: max(most[i], was.rss, is.rss),
		})
	}
	u.CPU, u.Each = all.Seconds(), each(all)
	return u, nil
}

// note adds a sentence to the report, once.
func (r *runner) note(format string, args ...any) {
	if s := fmt.Sprintf(format, args...); !slices.Contains(r.report.Notes, s) {
		r.report.Notes = append(r.report.Notes, s)
	}
}
