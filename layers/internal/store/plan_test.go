package store

import (
	"context"
	"fmt"
	"testing"
	"time"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/testdeps"
	"gochat/observability"
)

// TestGenericPlans: after some uses PostgreSQL plans a prepared statement once, for whatever its parameters are. No
// such plan may read a large table from end to end. What counts is what the server says that it has read.
func TestGenericPlans(t *testing.T) {
	const rows, each = 20_000, 2000
	server := testdeps.StartPostgres(t)
	cfg := Config{URL: server.URL}
	if _, err := MigrateUp(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	// An analysis at a moment of its own would make plans anew.
	execPostgres(t, server.URL, `ALTER TABLE messages SET (autovacuum_enabled = false)`)
	execPostgres(t, server.URL, `ALTER TABLE conversations SET (autovacuum_enabled = false)`)
	filler := open(t, cfg)
	var conversations []contract.Conversation
	for i := range rows / each {
		batch := make([]contract.Message, each)
		for n := range batch {
			c := contract.RoomConversation(contract.RoomID(i*each + n + 1))
			conversations = append(conversations, c)
			batch[n] = named(message(1, c), fmt.Sprint(i, " ", n))
		}
		mustCommit(t, filler, batch...)
	}
	execPostgres(t, server.URL, `ANALYZE messages`)
	execPostgres(t, server.URL, `ANALYZE conversations`)

	read := func() map[string]int64 {
		var tables []struct {
			Relname    string
			SeqTupRead int64
		}
		if err := filler.read.Raw(`SELECT relname, seq_tup_read FROM pg_stat_user_tables WHERE relname IN ('messages', 'conversations', 'outbox')`).Scan(&tables).Error; err != nil {
			t.Fatal(err)
		}
		got := make(map[string]int64)
		for _, table := range tables {
			got[table.Relname] = table.SeqTupRead
		}
		return got
	}
	// used runs a call on connections of its own, whose server processes tell what they have read when they end.
	used := func(call func(s *Store)) map[string]int64 {
		before := read()
		s, err := Open(Config{URL: server.URL + "&plan_cache_mode=force_generic_plan&application_name=generic", MaxConns: 1}, observability.Discard())
		if err != nil {
			t.Fatal(err)
		}
		call(s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the connection has ended", func() bool {
			var n int
			err := filler.read.Raw(`SELECT count(*) FROM pg_stat_activity WHERE application_name = 'generic'`).Scan(&n).Error
			return err == nil && n == 0
		})
		after := read()
		for table := range after {
			after[table] -= before[table]
		}
		return after
	}
	if got := used(func(s *Store) {
		var n int64
		if err := s.read.Raw(`SELECT count(*) FROM messages WHERE text = ?`, "no index has it").Scan(&n).Error; err != nil {
			t.Error(err)
		}
	}); got["messages"] != rows {
		t.Fatalf("a scan of all was seen as %v: nothing is shown", got)
	}
	for name, call := range map[string]func(*Store) error{
		"commit of what is new and what was stored": func(s *Store) error {
			batch := []contract.Message{named(message(1, "room:1"), "1 7"), named(message(1, "room:1"), "9 7"), message(1, "room:2")}
			results, err := s.Commit(t.Context(), batch, nil)
			if err == nil && (!results[0].Duplicate || !results[1].Duplicate || results[2].Duplicate) {
				t.Errorf("got %+v", results)
			}
			return err
		},
		"commit again": func(s *Store) error {
			stored := mustCommit(t, s, message(1, "room:1"), message(1, "room:2"), message(1, "room:3"))
			var again []*CommitResult
			for _, r := range stored {
				again = append(again, &CommitResult{Message: r.Message})
			}
			err := s.commitAtOnce(t.Context(), again, nil, true)
			for i, r := range again {
				if *r != stored[i] {
					t.Errorf("got %+v, want %+v", *r, stored[i])
				}
			}
			return err
		},
		"stored message": func(s *Store) error {
			_, err := s.Stored(t.Context(), 1)
			if contract.CodeOf(err) == contract.NotFound {
				err = nil
			}
			return err
		},
		"outbox": func(s *Store) error {
			end, err := s.OutboxEnd(t.Context())
			if err != nil {
				return err
			}
			_, err = s.Outbox(t.Context(), 0, end, 100)
			return err
		},
		"heads": func(s *Store) error { _, err := s.Heads(t.Context(), conversations[:500]); return err },
		"inbox": func(s *Store) error { _, err := s.Inbox(t.Context(), 2, 10); return err },
		"direct heads": func(s *Store) error {
			_, err := s.DirectHeads(t.Context(), []contract.UserSince{{User: 1, Since: now}, {User: 7, Since: now}})
			return err
		},
		"last before": func(s *Store) error {
			_, err := s.LastBefore(t.Context(), "room:7", now.Add(-time.Hour), 9)
			return err
		},
		"history": func(s *Store) error {
			_, _, err := s.History(context.Background(), "room:7", 0, 0, 50)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			const calls = 3
			got := used(func(s *Store) {
				for range calls {
					if err := call(s); err != nil {
						t.Fatal(err)
					}
				}
			})
			if name == "commit again" { // once for all of the batch
				var waiting int64
				used(func(s *Store) { // which tells what it has read when it ends, not within another subtest
					var err error
					if waiting, _, err = s.OutboxSize(t.Context()); err != nil {
						t.Fatal(err)
					}
				})
				got["outbox"] = max(got["outbox"]-calls*waiting, 0)
			}
			for table, n := range got {
				if n > 0 {
					t.Errorf("%d rows of %s were read one after another", n, table)
				}
			}
		})
	}
}
