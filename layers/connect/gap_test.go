package connect

import (
	"context"
	"slices"
	"testing"
	"time"

	"gochat/layers/internal/contract"
)

// TestGapInTheDatabase has messages go that task never pushed: what follows them comes at once, to everybody, and what is gone is
// counted as lost, once.
func TestGapInTheDatabase(t *testing.T) {
	for _, conversation := range []contract.Conversation{"room:1", dm} {
		t.Run(string(conversation), func(t *testing.T) {
			logic, s := stocked(nil)
			whole := logic.deliveries
			logic.deliveries = func(ctx context.Context, r *contract.DeliveriesRequest) (*contract.DeliveriesReply, error) {
				reply, err := whole(ctx, r)
				if err == nil {
					reply.Deliveries = slices.DeleteFunc(reply.Deliveries, func(d contract.Delivery) bool { return d.Seq == 3 || d.Seq == 4 || d.Seq == 7 })
				}
				return reply, err
			}
			n := startNode(t, logic, func(c *Connect) { c.cfg.Repair = time.Hour })
			conn := member(t, n, 2)
			var all []contract.Delivery
			for range 10 {
				all = append(all, s.add(conversation, "x"))
			}
			n.push(t, all[0])
			n.push(t, all[3])
			n.push(t, all[8])
			awaitSeqs(t, conn, conversation, 1, 2, 5, 6, 8, 9, 10)
			n.push(t, all[9])
			n.push(t, all[2]) // late after all: nobody waits for it
			settle(t, conn)
			if got := n.metric(t, "gochat_connect_deliveries_total", "lost"); got != 3 {
				t.Errorf("%v counted as lost, want 3", got)
			}
			if got := n.metric(t, "gochat_repairs_abandoned_total"); got != 2 {
				t.Errorf("%v given up, want 2", got)
			}
			conn.Close()
			eventually(t, "the connection has left", func() bool { return len(n.all()) == 0 })
			if got := n.metric(t, "gochat_connect_deliveries_total"); got != 10 {
				t.Errorf("%v counted, want 10", got)
			}
		})
	}
}

// TestGapAtTheFirst has the first direct message that is heard of be gone from the database: what follows it comes.
func TestGapAtTheFirst(t *testing.T) {
	logic, s := stocked(nil)
	whole := logic.deliveries
	logic.deliveries = func(ctx context.Context, r *contract.DeliveriesRequest) (*contract.DeliveriesReply, error) {
		reply, err := whole(ctx, r)
		if err == nil {
			reply.Deliveries = slices.DeleteFunc(reply.Deliveries, func(d contract.Delivery) bool { return d.Seq == 4 })
		}
		return reply, err
	}
	for range 3 {
		s.add(dm, "before")
	}
	time.Sleep(2 * time.Millisecond)
	n := startNode(t, logic, func(c *Connect) { c.cfg.Repair = time.Hour })
	conn := member(t, n, 2)
	var due []contract.Delivery
	for range 3 {
		due = append(due, s.add(dm, "x"))
	}
	n.push(t, due[0])
	awaitSeqs(t, conn, dm, 5, 6)
	n.push(t, s.add(dm, "goes on"))
	awaitSeqs(t, conn, dm, 5, 6, 7)
	if got := n.metric(t, "gochat_connect_deliveries_total", "lost"); got != 1 {
		t.Errorf("%v counted as lost, want 1", got)
	}
}
