package rabbitmq

import (
	"errors"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

// What came back is known to whoever asks afterwards, whether or not the channel has been closed meanwhile.
func TestUnroutedOutlivesTheChannel(t *testing.T) {
	for _, c := range []struct {
		name   string
		closed bool
	}{{"the channel is open", false}, {"the channel is closed", true}} {
		t.Run(c.name, func(t *testing.T) {
			for range 2000 { // a question may meet the channel's end at any point
				back := make(chan amqp.Return)
				u := watchUnrouted(back)
				f := &flight{lost: u, before: u.soFar(), messages: []message{{queue: "gone"}, {queue: "there"}}}
				back <- amqp.Return{RoutingKey: "gone"}
				if c.closed {
					close(back)
				}
				if got := u.soFar(); len(got) != 1 || got["gone"] != 1 {
					t.Fatalf("came back: %v, want one of the queue that is gone", got)
				}
				if errs := f.wait(t.Context()); !errors.Is(errs[0], errMissing) || errs[1] != nil {
					t.Fatalf("got %v, want that the first is not held", errs)
				}
				if !c.closed {
					close(back)
				}
				<-u.ended
			}
		})
	}
}
