package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"gorm.io/gorm"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/testdeps"
	"gochat/layers/internal/testwait"
	"gochat/observability"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 123_000_000, time.UTC)

// TestStore runs every promise on both databases.
func TestStore(t *testing.T) {
	suite := []struct {
		name string
		test func(*testing.T, *Store)
	}{
		{"users", testUsers},
		{"one name is given once", testUserRace},
		{"find users", testFindUsers},
		{"rooms", testRooms},
		{"list rooms", testListRooms},
		{"members", testMembers},
		{"commit", testCommit},
		{"duplicates", testDuplicates},
		{"a commit that fails leaves nothing", testCommitFails},
		{"a commit that is cancelled leaves nothing", testCommitCancelled},
		{"text that cannot be stored", testUnstorableText},
		{"concurrent committers", testConcurrentCommitters},
		{"racing duplicates", testRacingDuplicates},
		{"committers, publishers and readers", testMixedLoad},
		{"numbering follows the model", testModel},
		{"history", testHistory},
		{"heads", testHeads},
		{"last before", testLastBefore},
		{"direct heads", testDirectHeads},
		{"trim", testTrim},
		{"read marks", testMarkRead},
		{"inbox", testInbox},
		{"stored message", testStored},
		{"outbox", testOutbox},
		{"outbox pages", testOutboxPages},
		{"many ids", testManyIDs},
		{"ended context", testEndedContext},
	}
	for _, b := range backends(t) {
		t.Run(b.name, func(t *testing.T) {
			for _, c := range suite {
				t.Run(c.name, func(t *testing.T) { c.test(t, open(t, b.migrated(t))) })
			}
			if b.name == "postgres" { // SQLite has one writer, who waits for nobody
				t.Run("deadlock", func(t *testing.T) { testDeadlock(t, open(t, b.migrated(t))) })
			}
			t.Run("migrations", func(t *testing.T) { testMigrations(t, b.empty(t)) })
			t.Run("concurrent migrations", func(t *testing.T) { testConcurrentMigrations(t, b.empty(t)) })
			t.Run("survives SIGKILL", func(t *testing.T) { testSurvivesKill(t, b.migrated(t)) })
		})
	}
}

// backend makes databases that no other test uses.
type backend struct {
	name     string
	empty    func(testing.TB) Config
	migrated func(testing.TB) Config
}

func backends(t testing.TB) []backend {
	url := testdeps.Postgres(t)
	made := 0
	create := func(t testing.TB, template string) Config {
		t.Helper()
		made++
		name := fmt.Sprintf("test_%d", made)
		execPostgres(t, url, "CREATE DATABASE "+name+" TEMPLATE "+template)
		return Config{URL: strings.Replace(url, "/postgres?", "/"+name+"?", 1)}
	}
	migrate := func(t testing.TB, cfg Config) Config {
		t.Helper()
		if _, err := MigrateUp(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	file := func(t testing.TB) Config {
		return Config{URL: "sqlite:" + filepath.Join(t.TempDir(), "a database?#100%.db")}
	}
	migrate(t, create(t, "template0")) // test_1
	return []backend{
		{"postgres",
			func(t testing.TB) Config { return create(t, "template0") },
			func(t testing.TB) Config { return create(t, "test_1") }},
		{"sqlite", file, func(t testing.TB) Config { return migrate(t, file(t)) }},
	}
}

func execPostgres(t testing.TB, url, statement string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	_, err = conn.Exec(t.Context(), statement)
	if err := errors.Join(err, conn.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, cfg Config) *Store {
	t.Helper()
	s, err := Open(cfg, observability.Discard())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func user(t testing.TB, s *Store, name string) contract.User {
	t.Helper()
	u, err := s.CreateUser(t.Context(), name, "hash", now)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func wantCode(t testing.TB, err error, want contract.Code) {
	t.Helper()
	var e *contract.Error
	if !errors.As(err, &e) || e.Code != want {
		t.Errorf("got error %v, want %s", err, want)
	}
}

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  Config
		want string // part of the error; "" is none
	}{
		{"postgres", Config{URL: "postgres://u:p@h/db"}, ""},
		{"sqlite", Config{URL: "sqlite:data/gochat.db", MaxConns: 4}, ""},
		{"nothing, as for a process that needs no database", Config{}, ""},
		{"other database", Config{URL: "mysql://u:secret@h/db"}, "postgres://"},
		{"no path", Config{URL: "sqlite:"}, "path of a file"},
		{"memory", Config{URL: "sqlite::memory:"}, "path of a file"},
		{"negative", Config{URL: "sqlite:a", MaxConns: -1}, "max_conns"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.cfg.Validate()
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the error tells the password: %v", err)
			}
		})
	}
	if _, err := Open(Config{}, observability.Discard()); err == nil {
		t.Error("opened nothing")
	}
}

// TestOpenBeforeTheDatabase: a store can be had before its database is there, and says so when it is asked.
func TestOpenBeforeTheDatabase(t *testing.T) {
	s, err := Open(Config{URL: "postgres://u:secret@/db?host=" + t.TempDir()}, observability.Discard())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	for name, call := range map[string]func(context.Context) error{"Ping": s.Ping, "CheckSchema": s.CheckSchema} {
		if err := call(t.Context()); err == nil {
			t.Errorf("%s: answered without a database", name)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error tells the password: %v", name, err)
		}
	}
}

func testEndedContext(t *testing.T, s *Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	room := contract.RoomConversation(contract.Lobby)
	for name, call := range map[string]func() error{
		"Ping":         func() error { return s.Ping(ctx) },
		"CheckSchema":  func() error { return s.CheckSchema(ctx) },
		"CreateUser":   func() error { _, err := s.CreateUser(ctx, "late", "", now); return err },
		"UserByName":   func() error { _, _, err := s.UserByName(ctx, "late"); return err },
		"User":         func() error { _, err := s.User(ctx, 1); return err },
		"FindUsers":    func() error { _, err := s.FindUsers(ctx, "", 1); return err },
		"CountUsers":   func() error { _, err := s.CountUsers(ctx, " "); return err },
		"CreateRoom":   func() error { _, err := s.CreateRoom(ctx, "late", false, 1, now); return err },
		"Room":         func() error { _, err := s.Room(ctx, contract.Lobby, 1); return err },
		"Rooms":        func() error { _, _, err := s.Rooms(ctx, 1, "", 0, 1); return err },
		"Join":         func() error { return s.Join(ctx, contract.Lobby, 1, now) },
		"Leave":        func() error { return s.Leave(ctx, contract.Lobby, 1) },
		"Members":      func() error { _, _, err := s.Members(ctx, contract.Lobby, 0, 1); return err },
		"History":      func() error { _, _, err := s.History(ctx, room, 0, 0, 1); return err },
		"Heads":        func() error { _, err := s.Heads(ctx, []contract.Conversation{room}); return err },
		"Trim":         func() error { return s.Trim(ctx, room, 1) },
		"MarkRead":     func() error { _, err := s.MarkRead(ctx, 1, room, 1); return err },
		"Inbox":        func() error { _, err := s.Inbox(ctx, 1, 1); return err },
		"OutboxEnd":    func() error { _, err := s.OutboxEnd(ctx); return err },
		"Outbox":       func() error { _, err := s.Outbox(ctx, 0, 1, 1); return err },
		"DeleteOutbox": func() error { return s.DeleteOutbox(ctx, []contract.OutboxPosition{1}) },
		"OutboxSize":   func() error { _, _, err := s.OutboxSize(ctx); return err },
	} {
		if err := call(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v, want that the context was cancelled", name, err)
		}
	}
	if n, err := s.CountUsers(t.Context(), " "); n != 0 || err != nil {
		t.Errorf("got %d users, %v, want none", n, err)
	}
}

// TestPostgresRestart: a store lives through the loss of its database without being opened again.
func TestPostgresRestart(t *testing.T) {
	server := testdeps.StartPostgres(t)
	cfg := Config{URL: server.URL, MaxConns: 4}
	if _, err := MigrateUp(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	s := open(t, cfg)
	for range 3 {
		mustCommit(t, s, message(1, "room:1"), message(1, "dm:1:2"))
		server.Stop(t)
		if _, err := s.Commit(t.Context(), []contract.Message{message(1, "room:1")}, nil); err == nil {
			t.Error("committed without a database")
		}
		if _, err := s.Heads(t.Context(), []contract.Conversation{"room:1"}); err == nil {
			t.Error("read without a database")
		}
		server.Start(t)
		eventually(t, "reads work again", func() bool { return s.Ping(t.Context()) == nil })
	}
	mustCommit(t, s, message(1, "room:1"))
	heads, err := s.Heads(t.Context(), []contract.Conversation{"room:1"})
	if err != nil || heads["room:1"] != 4 {
		t.Errorf("got heads %v, %v, want 4: what was committed, and no more", heads, err)
	}
}

// testDeadlock has two transactions lock two rows crosswise: both are told that they succeeded, and did.
func testDeadlock(t *testing.T, s *Store) {
	mustCommit(t, s, message(1, "room:1"), message(1, "room:2"))
	const add = `UPDATE conversations SET last_seq = last_seq + 100 WHERE id = ?`
	var wg, bothHoldOne sync.WaitGroup
	bothHoldOne.Add(2)
	for _, order := range [][]string{{"room:1", "room:2"}, {"room:2", "room:1"}} {
		wg.Go(func() {
			first := true
			err := s.transact(t.Context(), func(tx *gorm.DB) error {
				if err := tx.Exec(add, order[0]).Error; err != nil {
					return err
				}
				if first {
					first = false
					bothHoldOne.Done()
					bothHoldOne.Wait()
				}
				return tx.Exec(add, order[1]).Error
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	heads, err := s.Heads(t.Context(), []contract.Conversation{"room:1", "room:2"})
	if err != nil || heads["room:1"] != 201 || heads["room:2"] != 201 {
		t.Errorf("got %v, %v, want both transactions once", heads, err)
	}
}

var eventually = testwait.Eventually

const killedURL = "GOCHAT_STORE_TEST_COMMITS_TO"

// TestMain lets the test binary be the process that testSurvivesKill kills.
func TestMain(m *testing.M) {
	if url := os.Getenv(killedURL); url != "" {
		commitForever(Config{URL: url})
	}
	os.Exit(m.Run())
}

// commitForever tells the head on stdout after each commit.
func commitForever(cfg Config) {
	s, err := Open(cfg, observability.Discard())
	for err == nil {
		var results []CommitResult
		results, err = s.Commit(context.Background(), []contract.Message{message(1, "room:1"), message(1, "room:1")}, nil)
		if err == nil {
			_, err = fmt.Println(results[1].Message.Seq)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func testSurvivesKill(t *testing.T, cfg Config) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var acknowledged int64
	for range 3 {
		child := exec.Command(program)
		child.Env = append(os.Environ(), killedURL+"="+cfg.URL)
		child.Stderr = os.Stderr
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		last := acknowledged
		for acknowledged < last+40 {
			if _, err := fmt.Fscan(out, &acknowledged); err != nil {
				t.Errorf("read from child: %v", err)
				break
			}
		}
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for { // what it had said before it died
			if _, err := fmt.Fscan(out, &acknowledged); err != nil {
				break
			}
		}
		_ = child.Wait() // it was killed

		s := open(t, cfg)
		if err := s.CheckSchema(t.Context()); err != nil {
			t.Error(err)
		}
		heads, err := s.Heads(t.Context(), []contract.Conversation{"room:1"})
		if err != nil || heads["room:1"] < acknowledged {
			t.Errorf("got heads %v, %v, want at least %d", heads, err, acknowledged)
		}
		if n, _, err := s.OutboxSize(t.Context()); err != nil || n != heads["room:1"] || n%2 != 0 {
			t.Errorf("got %d outbox rows, %v, for %d messages, want as many, in whole batches", n, err, heads["room:1"])
		}
	}
}

func TestMetrics(t *testing.T) {
	tel := observability.Discard()
	registry := tel.Metrics.(*prometheus.Registry)
	cfg := Config{URL: "sqlite:" + filepath.Join(t.TempDir(), "gochat.db")}
	s, err := Open(cfg, tel)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.User(t.Context(), 1); err == nil {
		t.Fatal("loaded a user from a database without tables")
	} else if !strings.HasPrefix(err.Error(), "load user: ") {
		t.Errorf("got %v, want it to name the attempt", err)
	}
	if _, err := MigrateUp(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	_, err = s.User(t.Context(), 1)
	wantCode(t, err, contract.NotFound)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			got[f.GetName()] += m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	if got["gochat_store_errors_total"] != 1 || got["gochat_store_seconds"] != 2 {
		t.Errorf("got %v, want one error of two operations", got)
	}
	if _, ok := got["go_sql_open_connections"]; !ok {
		t.Errorf("got %v, want the pool's state", got)
	}
}
