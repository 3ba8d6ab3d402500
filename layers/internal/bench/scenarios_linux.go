package bench

import (
	"context"
	"fmt"
	"slices"
	"time"

	"gochat/layers/internal/contract"
)

// rooms is Rooms, and Fanout, which is one room.
func (r *runner) rooms(ctx context.Context) error {
	rooms, size := 1, r.o.Members
	if r.o.Scenario == Rooms {
		rooms = r.o.Rooms
	}
	ids, err := r.rest.rooms(ctx, r.accounts[0], r.o.UserPrefix, rooms)
	if err != nil {
		return err
	}
	if err := r.connect(ctx, rooms*size, func(i int) contract.RoomID { return ids[i/size] }); err != nil {
		return err
	}
	groups := make([]audience, rooms)
	for i := range groups {
		members := r.loop.conns[i*size : (i+1)*size]
		groups[i] = audience{members[:r.o.Senders], members, roomHead(ids[i])}
	}
	return r.converse(ctx, groups)
}

func roomHead(room contract.RoomID) string { return fmt.Sprintf(`{"op":3,"roomId":%d,`, room) }

// private has two groups for a pair, one for each direction.
func (r *runner) private(ctx context.Context) error {
	if err := r.connect(ctx, 2*r.o.Pairs, func(int) contract.RoomID { return 0 }); err != nil {
		return err
	}
	groups := make([]audience, 2*r.o.Pairs)
	for i := range groups {
		from, to := r.loop.conns[i:i+1], r.loop.conns[i^1:i^1+1]
		from[0].inbox.own = i
		groups[i] = audience{from, to, fmt.Sprintf(`{"op":2,"toUserId":%d,`, r.accounts[i^1].ID)}
	}
	return r.converse(ctx, groups)
}

// converse is the one phase of a scenario and, if it is asked for, the same work of the reference.
func (r *runner) converse(ctx context.Context, groups []audience) error {
	p, m, err := r.exchange(ctx, exchange{
		name: r.o.Scenario, groups: groups, of: r.o.Processes, length: r.o.For, acks: true, pattern: r.pattern(groups),
	})
	if err != nil {
		return err
	}
	r.report.Phases = append(r.report.Phases, p)
	if !r.o.Reference || ctx.Err() != nil {
		return nil
	}
	if err := r.reference(ctx, groups, m); err != nil { // no reason to lose what the system has shown
		r.report.Faults = append(r.report.Faults, fmt.Sprintf("reference: %v", err))
	}
	return nil
}

// slow sends in a room of those who read, and once more when others are there who do not.
func (r *runner) slow(ctx context.Context) error {
	ids, err := r.rest.rooms(ctx, r.accounts[0], r.o.UserPrefix, 1)
	if err != nil {
		return err
	}
	n, room := r.o.Members, func(int) contract.RoomID { return ids[0] }
	if err := r.connect(ctx, n, room); err != nil {
		return err
	}
	reading := r.loop.conns[:n:n]
	groups := []audience{{reading[:r.o.Senders], reading, roomHead(ids[0])}}
	phase := func(name string) (*Phase, error) {
		p, _, err := r.exchange(ctx, exchange{
			name: name, groups: groups, of: r.o.Processes, length: r.o.For, acks: true, pattern: r.pattern(groups),
		})
		if err == nil {
			r.report.Phases = append(r.report.Phases, p)
		}
		return p, err
	}
	if _, err := phase("all read"); err != nil || ctx.Err() != nil {
		return err
	}
	for i := n; i < n+r.o.Silent; i++ {
		r.loop.add(r.targets.peer(i, r.o.Transport, r.accounts[i%len(r.accounts)].Token, ids[0])).silent = true
	}
	if err := r.open(ctx); err != nil {
		return err
	}
	silent := slices.DeleteFunc(slices.Clone(r.loop.conns[n:]), func(c *conn) bool { return c.state != up })
	p, err := phase("some never read")
	if err != nil {
		return err
	}
	p.Silent, p.SilentBytes = len(silent), int64(p.FrameBytes)*(p.Sent-p.Refused)
	stop := func() bool { return ctx.Err() != nil }
	p.SilentClosed, err = r.loop.catchUp(silent, r.patience(ctx, max(r.o.Drain, time.Second)), stop)
	if err == nil && !stop() {
		r.report.judgeSilent(p, heldByKernel())
	}
	return err
}

// idle connects, stays, and asks who is still served.
func (r *runner) idle(ctx context.Context) error {
	before, err := r.read(r.o.Processes)
	if err != nil {
		return err
	}
	if err := r.connect(ctx, r.o.Connections, func(int) contract.RoomID { return 0 }); err != nil {
		return err
	}
	w, err := r.watch(r.o.Processes)
	if err != nil {
		return err
	}
	defer w.end()
	l := r.loop
	l.each = func() { r.say("%d of %d connections are up, %d pings answered", l.up, len(l.conns), l.totals.pings) }
	defer func() { l.each = nil }()
	if err := l.run(w.before.at+r.o.For, func() bool { return ctx.Err() != nil }); err != nil {
		return err
	}
	used, err := w.use(0, l.now())
	if err != nil {
		return err
	}
	stay := &Stay{Held: used.Wall, Use: used}
	for i := range used.Processes {
		if p := &used.Processes[i]; before.processes != nil && l.up > 0 {
			p.Grown = float64(p.RSS-before.processes[i].rss) / float64(l.up)
		}
	}
	r.report.Idle = stay
	if ctx.Err() == nil { // a connection may be up for the kernel and forgotten by the server
		stay.Mute, err = l.ask(max(r.o.Drain, time.Second), func() bool { return ctx.Err() != nil })
	}
	stay.Up = l.up
	return err
}

// churn has all connections come, and go at once, until the time is over; once at least.
func (r *runner) churn(ctx context.Context) error {
	ids, err := r.rest.rooms(ctx, r.accounts[0], r.o.UserPrefix, 1)
	if err != nil {
		return err
	}
	others, err := r.rest.online(ctx, r.accounts[0], ids[0])
	if err != nil {
		return err
	}
	w, err := r.watch(r.o.Processes)
	if err != nil {
		return err
	}
	defer w.end()
	if n := len(r.accounts); n < r.o.Connections {
		r.note("the server counts users: with %d for %d connections its count is right once the first of each has come, and the last of each has gone", n, r.o.Connections)
	}
	rounds, l := &Rounds{Users: len(r.accounts)}, r.loop
	r.report.Churn = rounds
	for end := l.now() + r.o.For; ctx.Err() == nil && (len(rounds.Rounds) == 0 || l.now() < end); {
		began := l.now()
		if err := r.connect(ctx, r.o.Connections, func(int) contract.RoomID { return ids[0] }); err != nil {
			return err
		}
		if ctx.Err() != nil {
			break
		}
		round := Round{Up: l.up, UpAfter: (l.now() - began).Seconds()}
		round.Rate = float64(round.Up) / round.UpAfter
		if round.Counted, err = r.counted(ctx, ids[0], others+len(r.accounts)); err != nil {
			return err
		}
		l.closeAll()
		if round.Gone, err = r.counted(ctx, ids[0], others); err != nil {
			return err
		}
		if ctx.Err() != nil {
			break
		}
		rounds.Rounds = append(rounds.Rounds, round)
		r.say("round %d: %d up after %.3f s, counted %.3f s later, gone after %.3f s", len(rounds.Rounds), round.Up, round.UpAfter, round.Counted, round.Gone)
		if round.Counted < 0 || round.Gone < 0 {
			r.report.Faults = append(r.report.Faults, fmt.Sprintf("round %d: the server's count was not right within %v", len(rounds.Rounds), r.o.Drain))
			break
		}
	}
	rounds.Use, err = w.use(0, l.now())
	return err
}

// counted is how many seconds it takes until the server counts so many in the room, -1 if that is longer than
// r.o.Drain or ctx ends. Connections are served meanwhile.
func (r *runner) counted(ctx context.Context, room contract.RoomID, want int) (float64, error) {
	const pause = 5 * time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, max(r.o.Drain, time.Second))
	type answer struct {
		took float64
		err  error
	}
	answers := make(chan answer, 1)
	began := r.loop.now()
	go func() {
		for {
			n, err := r.rest.online(ctx, r.accounts[0], room)
			switch {
			case ctx.Err() != nil:
				answers <- answer{took: -1}
				return
			case err != nil:
				answers <- answer{err: err}
				return
			case n == want:
				answers <- answer{took: (r.loop.now() - began).Seconds()}
				return
			}
			time.Sleep(pause)
		}
	}()
	var stepErr error
	for {
		select {
		case a := <-answers:
			cancel()
			if stepErr != nil {
				return 0, stepErr
			}
			return a.took, a.err
		default:
		}
		if stepErr == nil {
			stepErr = r.loop.step(r.loop.now() + pause)
		} else {
			cancel()
			time.Sleep(pause)
		}
	}
}
