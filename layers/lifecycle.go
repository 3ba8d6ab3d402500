package layers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"gochat/observability"
)

// lifecycle runs parts, each with a context of its own, and ends them one after another in the reverse order of
// their start: what others rest on goes last.
type lifecycle struct {
	log   *slog.Logger
	parts []*part
	fail  func(error) // ends the process, since a part has ended by itself
}

type part struct {
	name string
	end  func() error // returns when the part has drained
}

// run starts a part that works until its context ends and returns once it has drained.
func (l *lifecycle) run(name string, work func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		err := work(ctx)
		if ctx.Err() == nil {
			if err == nil {
				err = errors.New("ended by itself")
			}
			l.fail(fmt.Errorf("%s: %w", name, err))
		}
		done <- err
	}()
	l.parts = append(l.parts, &part{name, func() error { cancel(); return <-done }})
}

// closing adds something to be done at that place of the end.
func (l *lifecycle) closing(name string, end func() error) {
	l.parts = append(l.parts, &part{name, end})
}

// stop ends every part, the last started first, and answers all that went wrong.
func (l *lifecycle) stop() error {
	var errs []error
	for i := len(l.parts) - 1; i >= 0; i-- {
		p := l.parts[i]
		start := time.Now()
		if err := p.end(); err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", p.name, err))
		}
		l.log.Debug("stopped", "part", p.name, "took", time.Since(start))
	}
	l.parts = nil
	return errors.Join(errs...)
}

// Backoff of what waits for a dependency.
const (
	waitFirst = 100 * time.Millisecond
	waitMost  = 5 * time.Second
)

// await tries until it succeeds or ctx ends, and says in the log and in readiness what it waits for.
func await(ctx context.Context, what string, health *observability.Health, log *slog.Logger, try func(context.Context) error) error {
	pause := waitFirst
	health.Set(what, errors.New("waiting for it: it has not answered yet")) // the first try may take its whole time
	for {
		bounded, cancel := context.WithTimeout(ctx, waitMost)
		err := try(bounded)
		cancel()
		if err == nil {
			health.Set(what, nil)
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("wait for %s: %w", what, ctx.Err())
		}
		health.Set(what, fmt.Errorf("waiting for it: %w", err))
		log.Warn("waiting for "+what, "again_in", pause.String(), "err", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, ctx.Err())
		}
		pause = min(2*pause, waitMost)
	}
}
