package contract

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"time"
)

func TestAsError(t *testing.T) {
	limited := RetryLater(RateLimited, 800*time.Millisecond, "too many messages")
	for _, c := range []struct {
		name  string
		err   error
		code  Code
		after time.Duration
		says  string
	}{
		{"an error", Errorf(NotFound, "room %d", 7), NotFound, 0, "room 7"},
		{"wrapped", fmt.Errorf("load: %w", Errorf(NotFound, "room 7")), NotFound, 0, "room 7"},
		{"with the time to wait", limited, RateLimited, 800 * time.Millisecond, "too many messages"},
		{"joined with others", errors.Join(errors.New("disk full"), limited), RateLimited, 800 * time.Millisecond, "too many messages"},
		{"beside a deadline", fmt.Errorf("%w: %w", context.DeadlineExceeded, Errorf(Conflict, "taken")), Conflict, 0, "taken"},
		{"deadline", fmt.Errorf("query: %w", context.DeadlineExceeded), Unavailable, time.Second, "not answered in time, try again"},
		{"ended context", context.Canceled, Unavailable, time.Second, "not answered in time, try again"},
		{"anything else", fmt.Errorf("password is hunter2: %w", net.ErrClosed), Internal, 0, "internal error"},
		{"a timeout of the system", os.ErrDeadlineExceeded, Internal, 0, "internal error"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := AsError(c.err)
			if want := (Error{c.code, c.says, c.after}); *got != want {
				t.Errorf("got %+v, want %+v", *got, want)
			}
			if CodeOf(c.err) != c.code {
				t.Errorf("got code %s, want %s", CodeOf(c.err), c.code)
			}
		})
	}
	if AsError(nil) != nil || CodeOf(nil) != "" {
		t.Error("nil is no error")
	}
}
