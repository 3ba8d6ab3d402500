package redis

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"gochat/layers/internal/queue"
)

// poller asks Redis for several readers in one round trip. It does so in rounds, one at a time; a reader whose handler
// works takes part in the next one after it has returned.
type poller struct {
	*Queue
	readers atomic.Int32 // that read now
	polls   chan *poll
	closed  chan struct{} // when no reader is left that could poll
	running sync.WaitGroup
}

// poll is what one reader wants of the next round.
type poll struct {
	stream  string
	since   time.Time
	handled []string // ids to acknowledge
	settled bool     // ask for new entries too

	done     chan struct{} // closed when what follows is there
	messages []goredis.XMessage
	pending  bool // the messages were read before
	acked    bool
	err      error
}

const (
	// roundPause is between the beginnings of two rounds while entries come, so that one round has several.
	roundPause = 4 * time.Millisecond
	// block is how long a read waits in Redis: well below readTimeout, and how late a reader may notice that its time
	// is over, or a new one begin.
	block = 250 * time.Millisecond
	// slow is when a reader that works is not waited for any more, and how long it may then wait for the next round.
	slow = 50 * time.Millisecond
)

func newPoller(q *Queue) *poller {
	p := &poller{Queue: q, polls: make(chan *poll, q.cfg.Partitions), closed: make(chan struct{})}
	p.running.Go(p.run)
	return p
}

// close ends the poller. No reader may poll after it.
func (p *poller) close() {
	close(p.closed)
	p.running.Wait()
}

// ask takes part in the next rounds until one has something for the reader, or nothing has come for a while.
func (p *poller) ask(r *reader) *poll {
	asked := &poll{stream: r.stream, since: time.Now(), handled: r.handled, settled: r.settled, done: make(chan struct{})}
	p.polls <- asked
	<-asked.done
	return asked
}

func (p *poller) run() {
	var waiting []*poll
	var last time.Time // that a reader came or entries did
	for {
		if len(waiting) == 0 {
			select {
			case first := <-p.polls:
				waiting, last = append(waiting, first), time.Now()
			case <-p.closed:
				return
			}
		}
		waiting = p.gather(waiting)
		began := time.Now()
		served, still := p.look(waiting)
		waiting = still
		switch {
		case len(served) > 0:
			last = began
			serve(served)
			time.Sleep(roundPause - time.Since(began))
		case len(waiting) == int(p.readers.Load()):
			waiting = p.wait(waiting, block)
			last = time.Now() // who was served works from now on, and may soon come again
		case time.Since(last) > slow:
			waiting = p.wait(waiting, slow)
		default: // a reader that works now will soon come with what it has handled
			select {
			case next := <-p.polls:
				waiting, last = append(waiting, next), time.Now()
			case <-time.After(roundPause):
			}
		}
	}
}

// serve lets the readers have what there is for them.
func serve(polls []*poll) {
	for _, one := range polls {
		close(one.done)
	}
}

// gather adds the readers that have come meanwhile.
func (p *poller) gather(waiting []*poll) []*poll {
	for {
		select {
		case next := <-p.polls:
			waiting = append(waiting, next)
		default:
			return waiting
		}
	}
}

// look tells Redis in one round trip what was handled, and asks for what is pending and, unless something may be, for
// what is new. If something is pending all the same, the new ones it got are left: they are pending then. It answers
// those that are served, and those for whom there was nothing.
func (p *poller) look(polls []*poll) (served, still []*poll) {
	ctx, cancel := context.WithTimeout(context.Background(), opTimeout)
	defer cancel()
	pipe := p.client.Pipeline()
	acks := make([][]goredis.Cmder, len(polls))
	var settled []*poll
	for i, one := range polls {
		acks[i] = ack(ctx, pipe, one.stream, one.handled)
		if one.settled {
			settled = append(settled, one)
		}
	}
	pending := pipe.XReadGroup(ctx, p.read(polls, "0"))
	news := goredis.NewXStreamSliceCmd(ctx)
	if len(settled) > 0 {
		news = pipe.XReadGroup(ctx, p.read(settled, ">"))
	}
	_, _ = pipe.Exec(ctx) // every command has its own error
	err := ignoring(pending.Err(), isNil)
	if err == nil {
		err = ignoring(news.Err(), isNil)
	}
	if answered(err) && len(polls) > 1 {
		// It may be the fault of one stream.
		for i := range polls {
			s, w := p.look(polls[i : i+1])
			served, still = append(served, s...), append(still, w...)
		}
		return served, still
	}
	old, fresh := byStream(pending), byStream(news)
	for i, one := range polls {
		one.acked, one.err = true, err
		for _, cmd := range acks[i] {
			if err := cmd.Err(); err != nil {
				p.readings.Metrics.Failed(queue.OpAck)
				one.acked, one.err = false, fmt.Errorf("acknowledge: %w", err)
			}
		}
		if one.acked {
			one.handled = nil // should it be asked again
		}
		one.messages, one.pending = old[one.stream], len(old[one.stream]) > 0
		if !one.pending {
			one.messages = fresh[one.stream]
		}
		if one.err != nil || len(one.messages) > 0 {
			served = append(served, one)
			continue
		}
		one.settled = true                 // nothing is pending
		if time.Since(one.since) > block { // its time may be over, though others get entries
			served = append(served, one)
			continue
		}
		still = append(still, one)
	}
	return served, still
}

func (p *poller) read(polls []*poll, from string) *goredis.XReadGroupArgs {
	args := &goredis.XReadGroupArgs{Group: group, Consumer: consumer, Count: int64(p.cfg.Batch), Block: -1}
	for _, one := range polls {
		args.Streams = append(args.Streams, one.stream)
	}
	for range polls {
		args.Streams = append(args.Streams, from)
	}
	return args
}

// once is a command that is not sent again when its reply is lost.
type once struct{ *goredis.XStreamSliceCmd }

func (once) NoRetry() bool { return true }

// wait waits for new entries and answers who has to ask again. Redis wakes a reader for the first stream that gets one:
// what has come to the others at the same time is looked for before any is served, so that they are handled together.
func (p *poller) wait(polls []*poll, most time.Duration) (still []*poll) {
	ctx, cancel := context.WithTimeout(context.Background(), opTimeout)
	defer cancel()
	args := []any{"xreadgroup", "group", group, consumer, "count", p.cfg.Batch, "block", most.Milliseconds(), "streams"}
	for _, s := range p.read(polls, ">").Streams {
		args = append(args, s)
	}
	cmd := once{goredis.NewXStreamSliceCmd(ctx, args...)}
	err := ignoring(p.client.Process(ctx, cmd), isNil, missing) // what is missing is made when it is looked for
	fresh := byStream(cmd.XStreamSliceCmd)
	if len(fresh) == 0 { // all go round again, in case their time is over
		for _, one := range polls {
			one.err = err
		}
		serve(polls)
		return nil
	}
	var served []*poll
	for _, one := range polls {
		if one.messages = fresh[one.stream]; len(one.messages) > 0 {
			served = append(served, one)
		} else {
			still = append(still, one)
		}
	}
	if len(still) > 0 {
		var more []*poll
		more, still = p.look(still)
		served = append(served, more...)
	}
	serve(served)
	return still
}

func byStream(cmd *goredis.XStreamSliceCmd) map[string][]goredis.XMessage {
	streams := make(map[string][]goredis.XMessage, len(cmd.Val()))
	for _, s := range cmd.Val() {
		streams[s.Stream] = s.Messages
	}
	return streams
}

// ack adds the commands that tell Redis what was handled. An entry that is deleted and still pending is found by the
// next look, one that would only be acknowledged by none.
func ack(ctx context.Context, pipe goredis.Pipeliner, stream string, handled []string) []goredis.Cmder {
	if len(handled) == 0 {
		return nil
	}
	return []goredis.Cmder{pipe.XDel(ctx, stream, handled...), pipe.XAck(ctx, stream, group, handled...)}
}
