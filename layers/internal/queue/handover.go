package queue

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"gochat/layers/internal/contract"
)

// ItemError is a handler's word that one item is itself at fault.
type ItemError = contract.ItemError

// errPanic says that the handler has panicked over items, perhaps over one of them.
var errPanic = errors.New("the handler has panicked")

// tryPause is between two tries of an item that is at fault; it doubles.
const tryPause = 20 * time.Millisecond

// HandOver gives items of one partition to the handler and answers how many, from the first, are done: handled, or
// set aside, each of which the driver may acknowledge. With an error the next one is not, and is to be handed over
// again after a pause; without one fewer than all may be done, and the rest is to be handed over next.
//
// An item is set aside when the handler has named it in an ItemError, or panicked over it alone, Config.Tries times.
// aside keeps it where people can look at it; until it has, the item is not done. Any other error says nothing of an
// item: whatever the handler rests on is away, and that may last.
func (r *Readings) HandOver(ctx context.Context, p int, h Handler, items []Item, aside func(context.Context, Item, error) error) (int, error) {
	err := call(ctx, h, items)
	at, faulty := faultyItem(err, len(items))
	switch {
	case err == nil:
		r.Metrics.Consumed.Add(float64(len(items)))
		return len(items), nil
	case !faulty:
		return 0, r.notHandled(p, items, err)
	case at > 0: // which of them it is shows when they come one by one
		return r.HandOver(ctx, p, h, items[:at], aside)
	case len(items) > 1:
		return r.HandOver(ctx, p, h, items[:1], aside)
	}
	it := items[0]
	for try, pause := 1, tryPause; try < r.cfg.Tries; try, pause = try+1, 2*pause {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		if err = call(ctx, h, items); err == nil {
			r.Metrics.Consumed.Inc()
			return 1, nil
		}
		if _, faulty := faultyItem(err, 1); !faulty {
			return 0, r.notHandled(p, items, err)
		}
	}
	r.log.ErrorContext(ctx, "queue item set aside", "partition", p, "key", it.Key, "bytes", len(it.Body), "tries", r.cfg.Tries, "err", err)
	if err := aside(ctx, it, err); err != nil {
		r.Metrics.Failed(OpSetAside)
		return 0, fmt.Errorf("set item aside: %w", err)
	}
	r.Metrics.setAside.Inc()
	return 1, nil
}

func (r *Readings) notHandled(p int, items []Item, err error) error {
	r.Metrics.Failed(OpHandle)
	r.log.Warn("deliveries failed and will be handed over again",
		"partition", p, "items", len(items), "attempt", items[0].Attempt, "err", err)
	return err
}

// call turns a panic into an error: one item must not end the process, and the next one that gets it.
func call(ctx context.Context, h Handler, items []Item) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%w: %v\n%s", errPanic, v, debug.Stack())
		}
	}()
	return h(ctx, items)
}

// faultyItem is the first item that may be at fault, if the error says that one is.
func faultyItem(err error, n int) (at int, faulty bool) {
	var of *ItemError
	switch {
	case errors.As(err, &of):
		return min(max(of.Index, 0), n-1), true
	case errors.Is(err, errPanic):
		return 0, true
	}
	return 0, false
}
