package store

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"gochat/layers/internal/contract"
)

func testRooms(t *testing.T, s *Store) {
	ann, bob := user(t, s, "ann"), user(t, s, "bob")
	made, err := s.CreateRoom(t.Context(), "Tea", true, ann.ID, now)
	want := contract.Room{ID: made.ID, Name: "Tea", Private: true, Owner: ann.ID, CreatedAt: now, Member: true}
	if err != nil || made != want || made.ID <= contract.Lobby {
		t.Fatalf("got %+v, %v, want %+v", made, err, want)
	}
	if got, err := s.Room(t.Context(), made.ID, ann.ID); err != nil || got != want {
		t.Errorf("for the owner: got %+v, %v, want %+v", got, err, want)
	}
	want.Member = false
	if got, err := s.Room(t.Context(), made.ID, bob.ID); err != nil || got != want {
		t.Errorf("for another: got %+v, %v, want %+v", got, err, want)
	}
	if again, err := s.CreateRoom(t.Context(), "Tea", true, bob.ID, now); err != nil || again.ID == made.ID {
		t.Errorf("a second room of the name: got %+v, %v", again, err)
	}
	_, err = s.Room(t.Context(), 999, ann.ID)
	wantCode(t, err, contract.NotFound)
	_, err = s.CreateRoom(t.Context(), "\x00", false, ann.ID, now)
	wantCode(t, err, contract.BadRequest)

	if _, err := s.CreateRoom(t.Context(), "orphan", false, 999, now); err == nil {
		t.Error("made a room for an owner who does not exist")
	}
	if rooms, _, err := s.Rooms(t.Context(), ann.ID, "orphan", 0, 10); err != nil || len(rooms) != 0 {
		t.Errorf("a room that could not be made is there: %v, %v", rooms, err)
	}
}

func testListRooms(t *testing.T, s *Store) {
	ann, bob := user(t, s, "ann"), user(t, s, "bob")
	for _, r := range []struct {
		name    string
		private bool
		owner   contract.User
	}{
		{"Tea", false, ann}, {"tea for two", true, bob}, {"100% Ärger", false, bob}, {"a_b", false, bob}, {"axb", false, bob}, {`c\d`, true, ann},
	} {
		if _, err := s.CreateRoom(t.Context(), r.name, r.private, r.owner.ID, now); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name  string
		user  contract.User
		query string
		after contract.RoomID
		limit int
		want  []string
		more  bool
	}{
		{"all", ann, "", 0, 10, []string{"lobby", "Tea", "100% Ärger", "a_b", "axb", `c\d`}, false},
		{"exactly the limit", ann, "", 0, 6, []string{"lobby", "Tea", "100% Ärger", "a_b", "axb", `c\d`}, false},
		{"first page", ann, "", 0, 2, []string{"lobby", "Tea"}, true},
		{"second page", ann, "", 2, 2, []string{"100% Ärger", "a_b"}, true},
		{"own private", bob, "TEA", 0, 10, []string{"Tea", "tea for two"}, false},
		{"another's private", ann, "tea", 0, 10, []string{"Tea"}, false},
		{"case beyond ASCII", ann, "äRG", 0, 10, []string{"100% Ärger"}, false},
		{"percent", ann, "%", 0, 10, []string{"100% Ärger"}, false},
		{"underscore", ann, "a_b", 0, 10, []string{"a_b"}, false},
		{"backslash", ann, `\`, 0, 10, []string{`c\d`}, false},
		{"none", ann, "coffee", 0, 10, nil, false},
		{"no text", ann, "\x00", 0, 10, nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			rooms, more, err := s.Rooms(t.Context(), c.user.ID, c.query, c.after, c.limit)
			var got []string
			for _, r := range rooms {
				got = append(got, r.Name)
				if r.Member != (r.Owner == c.user.ID) {
					t.Errorf("%s: member is %t", r.Name, r.Member)
				}
			}
			if err != nil || more != c.more || !slices.Equal(got, c.want) {
				t.Errorf("got %q, more %t, %v, want %q, more %t", got, more, err, c.want, c.more)
			}
		})
	}
}

func testMembers(t *testing.T, s *Store) {
	var users []contract.User
	for i := range 5 {
		users = append(users, user(t, s, fmt.Sprint("user ", i)))
	}
	var wg sync.WaitGroup
	for _, u := range users {
		for range 3 {
			wg.Go(func() {
				if err := s.Join(t.Context(), contract.Lobby, u.ID, now); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	check := func(after contract.UserID, limit int, want []contract.User, wantMore bool) {
		t.Helper()
		got, more, err := s.Members(t.Context(), contract.Lobby, after, limit)
		if err != nil || more != wantMore || !slices.Equal(got, want) {
			t.Errorf("got %v, more %t, %v, want %v, more %t", got, more, err, want, wantMore)
		}
	}
	check(0, 10, users, false)
	check(0, 2, users[:2], true)
	check(users[1].ID, 3, users[2:], false)
	for range 2 {
		if err := s.Leave(t.Context(), contract.Lobby, users[0].ID); err != nil {
			t.Error(err)
		}
	}
	check(0, 10, users[1:], false)
	if room, err := s.Room(t.Context(), contract.Lobby, users[0].ID); err != nil || room.Member {
		t.Errorf("after leaving: got %+v, %v", room, err)
	}
	wantCode(t, s.Join(t.Context(), 999, users[0].ID, now), contract.NotFound)
	if err := s.Join(t.Context(), contract.Lobby, 999, now); err == nil {
		t.Error("a user who does not exist joined")
	}
	if err := s.Leave(t.Context(), 999, users[0].ID); err != nil {
		t.Errorf("leave a room that does not exist: %v", err)
	}
}
