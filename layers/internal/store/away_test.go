package store

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/testdeps"
	"gochat/layers/internal/testwait"
)

// What passes by itself is Unavailable, with the time of another try; what does not is no answer for a client.
func TestAway(t *testing.T) {
	server := testdeps.StartPostgres(t)
	if _, err := MigrateUp(t.Context(), Config{URL: server.URL}); err != nil {
		t.Fatal(err)
	}
	ann := user(t, open(t, Config{URL: server.URL}), "ann")
	load := func(s *Store) error { _, err := s.User(t.Context(), ann.ID); return err }
	for _, c := range []struct {
		name string
		fail func(t *testing.T, proxy *testdeps.PostgresProxy, s *Store) error
		want contract.Code
	}{
		{"cut and refused", func(_ *testing.T, proxy *testdeps.PostgresProxy, s *Store) error {
			proxy.Away()
			return load(s)
		}, contract.Unavailable},
		{"lost while it answers", func(t *testing.T, proxy *testdeps.PostgresProxy, s *Store) error {
			lost := proxy.Lose("a value", testdeps.AnswerLost) // of the statement that runs, no more of the one that is prepared
			err := s.query(t.Context()).Exec(`SELECT ?::text`, "a value").Error
			testwait.Receive(t, "the loss", lost.Done)
			return err
		}, contract.Unavailable},
		{"within another operation", func(_ *testing.T, proxy *testdeps.PostgresProxy, s *Store) error {
			proxy.Away()
			return s.Join(t.Context(), 1, ann.ID, time.Now())
		}, contract.Unavailable},
		{"a commit that is not begun", func(_ *testing.T, proxy *testdeps.PostgresProxy, s *Store) error {
			proxy.Away()
			_, err := s.Commit(t.Context(), []contract.Message{message(ann.ID, "room:1")}, nil)
			return err
		}, contract.Unavailable},
		{"ended by its operator", func(t *testing.T, _ *testdeps.PostgresProxy, s *Store) error {
			return s.query(t.Context()).Exec(`SELECT pg_terminate_backend(pg_backend_pid())`).Error
		}, contract.Unavailable},
		{"a wrong statement", func(t *testing.T, _ *testdeps.PostgresProxy, s *Store) error {
			return s.query(t.Context()).Exec(`SELECT nothing FROM users`).Error
		}, contract.Internal},
		{"a wrong value", func(t *testing.T, _ *testdeps.PostgresProxy, s *Store) error {
			return s.query(t.Context()).Exec(`SELECT 1 / 0`).Error
		}, contract.Internal},
		{"a user that the server does not know", func(t *testing.T, proxy *testdeps.PostgresProxy, _ *Store) error {
			return load(open(t, Config{URL: strings.Replace(proxy.URL, "postgres@", "nobody@", 1)}))
		}, contract.Internal},
		{"a caller who leaves", func(t *testing.T, _ *testdeps.PostgresProxy, s *Store) error {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_, err := s.User(ctx, ann.ID)
			return err
		}, contract.Unavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			proxy := server.Proxy(t)
			s := open(t, Config{URL: proxy.URL})
			if err := load(s); err != nil {
				t.Fatal(err)
			}
			err := func() (err error) {
				_, end := s.begin(t.Context(), "test")
				defer end(&err)
				return c.fail(t, proxy, s)
			}()
			e := contract.AsError(err)
			if e == nil || e.Code != c.want || c.want == contract.Unavailable && e.RetryAfter != time.Second {
				t.Errorf("got %v, want %s", err, c.want)
			}
			if e != nil && (strings.Contains(e.Message, "postgres") || strings.Contains(e.Message, "SQL")) {
				t.Errorf("clients see %q", e.Message)
			}
			var counted dto.Metric
			if err := s.telemetry.errors.WithLabelValues("test").Write(&counted); err != nil || counted.GetCounter().GetValue() != 1 {
				t.Errorf("%v failures are counted (%v), want 1", counted.GetCounter().GetValue(), err)
			}
			if errors.Is(err, errAway) && strings.Count(err.Error(), "does not answer") != 1 {
				t.Errorf("got %v, want it said once", err)
			}
			proxy.Back()
			if err := load(s); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}
