package layers

import (
	"database/sql"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/testclient"
	"gochat/layers/internal/testwait"
)

// TestFullQueue has more messages sent than may wait while the database stands still: whoever finds no place is told so
// while the others wait, though all of them come to logic by batches.
func TestFullQueue(t *testing.T) {
	t.Parallel()
	const places, senders = 2 * contract.MaxSends, 2*contract.MaxSends + 144
	b := realBackend(t)
	cfg := b.config()
	cfg.Logic.Commit.Queue, cfg.Logic.Commit.Batch = places, 100
	cfg.Logic.Commit.Timeout, cfg.RPC.Timeout = testwait.Patience, testwait.Patience
	all := start(t, cfg, All()...)
	ann := testclient.Register(t, all.api(), "ann")

	db, err := sql.Open("pgx", b.database)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	lock, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Rollback() }() // an error says that it is over already

	if _, err := lock.ExecContext(t.Context(), "LOCK TABLE conversations IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}

	var sending sync.WaitGroup
	var stored, refused atomic.Int32
	for i := range senders {
		sending.Go(func() {
			status, body, err := ann.Try("POST", "/v1/rooms/1/messages", map[string]any{"msg": fmt.Sprint(i)})
			switch {
			case err == nil && status == http.StatusCreated:
				stored.Add(1)
			case err == nil && status == http.StatusServiceUnavailable && strings.Contains(string(body), "too many messages are waiting"):
				refused.Add(1)
			default:
				t.Errorf("send %d: status %d, %v: %s", i, status, err, body)
			}
		})
	}
	begun := time.Now()
	testwait.Eventually(t, "those without a place are told", func() bool { return refused.Load() >= senders-places })
	t.Logf("%d of %d refused within %v", refused.Load(), senders, time.Since(begun))
	if stored.Load() > 0 {
		t.Error("stored while the table was locked")
	}
	if err := lock.Rollback(); err != nil {
		t.Fatal(err)
	}
	sending.Wait()
	var history struct {
		Messages []struct{ Text string } `json:"messages"`
	}
	seen := int32(0)
	for after, more := 0, true; more; after += len(history.Messages) {
		ann.Must(t, "GET", fmt.Sprintf("/v1/rooms/1/messages?after=%d&limit=100", after), nil, &history)
		seen += int32(len(history.Messages))
		more = len(history.Messages) > 0
	}
	if seen != stored.Load() || seen == 0 {
		t.Errorf("%d messages are in the room, %d were acknowledged", seen, stored.Load())
	}
}
