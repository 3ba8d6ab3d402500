package store

import (
	"slices"
	"strings"
	"sync"
	"testing"

	"gochat/layers/internal/contract"
)

func testMigrations(t *testing.T, cfg Config) {
	s := open(t, cfg)
	names := []string{"00001_users_and_rooms.sql", "00002_messages.sql", "00003_outbox_without_bodies.sql", "00004_outbox_by_position.sql"}
	check := func(step string, wantApplied int) {
		t.Helper()
		states, err := MigrateStatus(t.Context(), cfg)
		if err != nil || len(states) != len(names) {
			t.Fatalf("%s: got %v, %v, want %d migrations", step, states, err, len(names))
		}
		for i, got := range states {
			applied := i < wantApplied
			if got.Name != names[i] || got.Applied != applied || got.AppliedAt.IsZero() == applied {
				t.Errorf("%s: got %+v, want %s, applied %t", step, got, names[i], applied)
			}
		}
		err = s.CheckSchema(t.Context())
		if wantApplied == len(names) && err != nil {
			t.Errorf("%s: check schema: %v", step, err)
		}
		if wantApplied < len(names) && (err == nil || !strings.Contains(err.Error(), "run gochat migrate up")) {
			t.Errorf("%s: check schema: got %v, want advice", step, err)
		}
	}
	if err := s.CheckSchema(t.Context()); err == nil {
		t.Error("an empty database passed the check")
	}
	check("empty", 0)
	up := func() {
		t.Helper()
		applied, err := MigrateUp(t.Context(), cfg)
		if err != nil || strings.Join(applied, " ") != strings.Join(names, " ") {
			t.Fatalf("up: got %v, %v, want %v", applied, err, names)
		}
		check("up", len(names))
		mustCommit(t, s, message(user(t, s, "ann").ID, "room:1"))
	}
	up()
	waiting := outbox(t, s)
	if _, err := MigrateDown(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if _, err := MigrateUp(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if got := outbox(t, s); len(got) != 1 || !slices.Equal(got, waiting) {
		t.Errorf("down and up again: got the outbox %+v, want %+v", got, waiting)
	}
	if applied, err := MigrateUp(t.Context(), cfg); err != nil || len(applied) != 0 {
		t.Errorf("up again: got %v, %v, want nothing to do", applied, err)
	}
	for i := len(names) - 1; i >= 0; i-- {
		if reverted, err := MigrateDown(t.Context(), cfg); err != nil || reverted != names[i] {
			t.Fatalf("down: got %q, %v, want %q", reverted, err, names[i])
		}
		check("down", i)
	}
	if reverted, err := MigrateDown(t.Context(), cfg); err != nil || reverted != "" {
		t.Errorf("down from nothing: got %q, %v, want nothing to do", reverted, err)
	}
	up()

	lobby, err := s.Room(t.Context(), contract.Lobby, 1)
	if err != nil || lobby.Name != "lobby" || lobby.Private || lobby.Owner != 0 || lobby.Member || lobby.CreatedAt.Year() < 2020 {
		t.Errorf("got lobby %+v, %v", lobby, err)
	}
	if err := s.write.Exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, true)`).Error; err != nil {
		t.Fatal(err)
	}
	if err := s.CheckSchema(t.Context()); err == nil || !strings.Contains(err.Error(), "newer than this program") {
		t.Errorf("check schema of a newer database: got %v", err)
	}
}

func testConcurrentMigrations(t *testing.T, cfg Config) {
	if s := open(t, cfg); s.dialect == sqliteFile {
		if _, err := MigrateUp(t.Context(), cfg); err != nil { // one process owns the file
			t.Error(err)
		}
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := MigrateUp(t.Context(), cfg); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := open(t, cfg).CheckSchema(t.Context()); err != nil {
		t.Error(err)
	}
}
