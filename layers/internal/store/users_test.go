package store

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"gochat/layers/internal/contract"
)

func testUsers(t *testing.T, s *Store) {
	ann, err := s.CreateUser(t.Context(), "ann", "secret hash", now)
	if err != nil || ann.ID <= 0 || ann.Name != "ann" {
		t.Fatalf("got %+v, %v", ann, err)
	}
	_, err = s.CreateUser(t.Context(), "ann", "other", now)
	wantCode(t, err, contract.Conflict)
	if other := user(t, s, "Ann"); other.ID == ann.ID {
		t.Error("names that differ in case are one user")
	}
	got, hash, err := s.UserByName(t.Context(), "ann")
	if err != nil || got != ann || hash != "secret hash" {
		t.Errorf("by name: got %+v, %q, %v", got, hash, err)
	}
	if got, err := s.User(t.Context(), ann.ID); err != nil || got != ann {
		t.Errorf("by id: got %+v, %v", got, err)
	}
	_, _, err = s.UserByName(t.Context(), "ANN")
	wantCode(t, err, contract.NotFound)
	_, err = s.User(t.Context(), 999)
	wantCode(t, err, contract.NotFound)
	user(t, s, " of the system")
	user(t, s, "!") // which follows all that begins with a space
	for except, want := range map[string]int64{" ": 3, " of": 3, " off": 4, "ann": 3, "a": 3, "\U0010FFFF": 4} {
		if n, err := s.CountUsers(t.Context(), except); err != nil || n != want {
			t.Errorf("got %d users but for those of %q, %v, want %d", n, except, err, want)
		}
	}
	for _, name := range []string{"a\x00b", "\xff"} {
		_, err = s.CreateUser(t.Context(), name, "", now)
		wantCode(t, err, contract.BadRequest)
		_, _, err = s.UserByName(t.Context(), name)
		wantCode(t, err, contract.NotFound)
	}
}

func testUserRace(t *testing.T, s *Store) {
	var wg sync.WaitGroup
	var made atomic.Int64
	for range 50 {
		wg.Go(func() {
			if _, err := s.CreateUser(t.Context(), "ann", "hash", now); err == nil {
				made.Add(1)
			} else {
				wantCode(t, err, contract.Conflict)
			}
		})
	}
	wg.Wait()
	if made.Load() != 1 {
		t.Errorf("got %d users of one name, want 1", made.Load())
	}
}

func testFindUsers(t *testing.T, s *Store) {
	for _, name := range []string{"ann", "anna", "Ann", "bob", "a%", "a_c", "a\\", "ünal", "z\U0010FFFFz", "\uD7FFx", "\uE000"} {
		user(t, s, name)
	}
	for _, c := range []struct {
		prefix string
		limit  int
		want   []string
	}{
		{"ann", 10, []string{"ann", "anna"}},
		{"a", 2, []string{"a%", "a\\"}},
		{"a%", 10, []string{"a%"}},
		{"a_", 10, []string{"a_c"}},
		{"a\\", 10, []string{"a\\"}},
		{"%", 10, nil},
		{"A", 10, []string{"Ann"}},
		{"ü", 10, []string{"ünal"}},
		{"z\U0010FFFF", 10, []string{"z\U0010FFFFz"}},
		{"\U0010FFFF", 10, nil},
		{"\uD7FF", 10, []string{"\uD7FFx"}},
		{"\x00", 10, nil},
		{"", 3, []string{"Ann", "a%", "a\\"}},
	} {
		t.Run(fmt.Sprintf("%q", c.prefix), func(t *testing.T) {
			users, err := s.FindUsers(t.Context(), c.prefix, c.limit)
			var got []string
			for _, u := range users {
				got = append(got, u.Name)
			}
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("got %q, %v, want %q", got, err, c.want)
			}
		})
	}
}
