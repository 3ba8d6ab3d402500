package logic

import (
	"context"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"gochat/layers/internal/contract"
)

// The hash is one of the reference implementation's own tests (argon2id, version 0x13).
func TestPasswordGolden(t *testing.T) {
	p := newPasswords(Argon2Config{MemoryKiB: 8, Time: 1})
	const phc = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"
	for password, want := range map[string]bool{"password": true, "Password": false, "password ": false, "": false} {
		if got, err := p.verify(t.Context(), password, phc, always); err != nil || got != want {
			t.Errorf("%q: got %v, %v, want %v", password, got, err, want)
		}
	}
}

func always() error { return nil }

func TestPasswordHashes(t *testing.T) {
	p := newPasswords(Argon2Config{MemoryKiB: 16, Time: 3})
	one, err := p.hash(t.Context(), "secret word")
	if err != nil {
		t.Fatal(err)
	}
	two, err := p.hash(t.Context(), "secret word")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(one, "$argon2id$v=19$m=16,t=3,p=1$") || strings.Contains(one, "secret") {
		t.Errorf("got %s", one)
	}
	if one == two {
		t.Error("two hashes of one password are the same: there is no salt")
	}
	later := newPasswords(Argon2Config{MemoryKiB: 8, Time: 1}) // the cost is changed some day
	if same, err := later.verify(t.Context(), "secret word", one, always); err != nil || !same {
		t.Errorf("after a change of the cost: %v, %v", same, err)
	}
	for _, broken := range []string{
		"secret word", "$argon2id$v=19$m=8,t=1,p=1$$", "$argon2i$v=19$m=8,t=1,p=1$c29tZXNhbHQ$AAAA", "$argon2id$v=16$m=8,t=1,p=1$c29tZXNhbHQ$AAAA",
		"$argon2id$v=19$m=8,t=0,p=1$c29tZXNhbHQ$AAAA", "$argon2id$v=19$m=8,t=1,p=2$c29tZXNhbHQ$AAAA", "$argon2id$v=19$m=8,t=1,p=1$!$AAAA",
	} {
		if same, err := p.verify(t.Context(), "secret word", broken, always); err == nil || same {
			t.Errorf("%s: got %v, %v, want an error", broken, same, err)
		}
	}
}

// However many hash at once, only as many as there are processors take memory; the others wait, for as long as
// their callers do.
func TestPasswordsAreBounded(t *testing.T) {
	p := newPasswords(Argon2Config{MemoryKiB: 8, Time: 1})
	release := make(chan struct{})
	var working, most atomic.Int32
	var all sync.WaitGroup
	slots := int32(runtime.GOMAXPROCS(0))
	for range 4 * slots {
		all.Go(func() {
			err := p.slot(t.Context(), func() error {
				most.Store(max(most.Load(), working.Add(1)))
				<-release
				working.Add(-1)
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	eventually(t, "all slots are taken", func() bool { return working.Load() == slots })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := p.hash(ctx, "password")
	wantCode(t, err, contract.Unavailable)
	_, err = p.verify(ctx, "password", "", always)
	wantCode(t, err, contract.Unavailable)
	close(release)
	all.Wait()
	if most.Load() > slots {
		t.Errorf("%d hashed at once, want at most %d", most.Load(), slots)
	}
}

func TestRegister(t *testing.T) {
	h := newHouse(t)
	l := h.logic(t)
	long := strings.Repeat("x", 300)
	for _, c := range []struct {
		name                   string
		user, password, device string
		code                   contract.Code
	}{
		{"plain", "ann", "123456", "", ""},
		{"with a device", "Zoë 李", "123456", "phone", ""},
		{"longest", long[:contract.MaxNameBytes], long[:contract.MaxPasswordBytes], long[:contract.MaxDeviceBytes], ""},
		{"password of any bytes", "bytes", "\x00\xff\x00\xff\x00\xff", "", ""},
		{"taken", "ann", "another", "", contract.Conflict},
		{"no name", "", "123456", "", contract.BadRequest},
		{"name too long", long[:contract.MaxNameBytes+1], "123456", "", contract.BadRequest},
		{"name not UTF-8", "a\xffb", "123456", "", contract.BadRequest},
		{"name with a NUL", "a\x00b", "123456", "", contract.BadRequest},
		{"name with a line", "a\nb", "123456", "", contract.BadRequest},
		{"name that looks like another", "ann\u200b", "123456", "", contract.BadRequest},
		{"name that reads backwards", "a\u202eb", "123456", "", contract.BadRequest},
		{"name of spaces", "  ", "123456", "", contract.BadRequest},
		{"name with a space at its end", "ann ", "123456", "", contract.BadRequest},
		{"no password", "bob", "", "", contract.BadRequest},
		{"password that everybody knows", "demo", demoPassword, "", contract.BadRequest},
		{"password too long", "bob", long[:contract.MaxPasswordBytes+1], "", contract.BadRequest},
		{"device with a NUL", "bob", "123456", "a\x00", contract.BadRequest},
		{"device too long", "bob", "123456", long[:contract.MaxDeviceBytes+1], contract.BadRequest},
	} {
		t.Run(c.name, func(t *testing.T) {
			g, err := l.Register(t.Context(), &contract.RegisterRequest{Name: c.user, Password: c.password, Device: c.device})
			wantCode(t, err, c.code)
			if err != nil {
				return
			}
			who, err := l.Authenticate(t.Context(), &contract.AuthenticateRequest{Credential: contract.Credential{Token: g.Token}})
			if err != nil || who.User != g.User || who.Name != c.user || who.Device != c.device || who.Session != contract.SessionOf(g.Token) {
				t.Errorf("the token speaks for %+v, %v", who, err)
			}
			again, err := l.Login(t.Context(), &contract.LoginRequest{Name: c.user, Password: c.password})
			if err != nil || again.User != g.User || again.Token == g.Token {
				t.Errorf("logging in: %+v, %v", again, err)
			}
		})
	}
	if n, err := h.store.CountUsers(t.Context(), canaryMark); err != nil || n != 4 {
		t.Errorf("%d users (%v), want the 4 that were made", n, err)
	}
}

func TestLogin(t *testing.T) {
	l := newHouse(t).logic(t)
	register(t, l, "ann")
	long := strings.Repeat("x", 300)
	var said []string
	for _, c := range []struct{ name, user, password string }{
		{"wrong password", "ann", "password of bob"},
		{"no password", "ann", ""},
		{"unknown name", "bob", "password of bob"},
		{"no name", "", ""},
		{"another case", "Ann", "password of ann"},
		{"name with a NUL", "ann\x00", "password of ann"},
		{"name not UTF-8", "ann\xff", "password of ann"},
		{"name too long", long, "password of ann"},
		{"password too long", "ann", long},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := l.Login(t.Context(), &contract.LoginRequest{Name: c.user, Password: c.password})
			wantCode(t, err, contract.Unauthenticated)
			said = append(said, contract.AsError(err).Message)
		})
	}
	for _, s := range said {
		if s != said[0] {
			t.Errorf("%q tells another story than %q", s, said[0])
		}
	}
	if _, err := l.Login(t.Context(), &contract.LoginRequest{Name: "ann", Password: "password of ann"}); err != nil {
		t.Errorf("the right password: %v", err)
	}
}

// A name that does not exist costs the same work as one that does: the time does not tell which it was.
func TestUnknownNameTakesTheSamePath(t *testing.T) {
	l := newHouse(t).logic(t)
	register(t, l, "ann")
	for range cap(l.passwords.slots) {
		l.passwords.slots <- struct{}{} // whoever hashes waits from here on
	}
	for _, name := range []string{"ann", "nobody"} {
		ctx, cancel := context.WithTimeout(t.Context(), aWhile)
		defer cancel()
		_, err := l.Login(ctx, &contract.LoginRequest{Name: name, Password: "wrong password"})
		if contract.CodeOf(err) != contract.Unavailable || !strings.Contains(err.Error(), "hash") {
			t.Errorf("%s: got %v, want that it waits to hash", name, err)
		}
	}
	if cost, salt, key, err := decodePHC(l.passwords.dummy); err != nil || cost != l.auth.Argon2 || len(salt) != saltBytes || len(key) != keyBytes {
		t.Errorf("the hash checked for unknown names has another cost than those of users: %+v", cost)
	}
}

// Guessing is limited, by any number of guesses at once too; those who know the password are not in the way of
// themselves.
func TestFailedLoginsAreLimited(t *testing.T) {
	l := newHouse(t).logic(t)
	register(t, l, "ann")
	right := &contract.LoginRequest{Name: "ann", Password: "password of ann"}
	for range 2 * loginBurst {
		if _, err := l.Login(t.Context(), right); err != nil {
			t.Fatalf("logging in often: %v", err)
		}
	}
	var wrong, limited atomic.Int32
	var guessing sync.WaitGroup
	for range 10 * loginBurst {
		guessing.Go(func() {
			switch _, err := l.Login(t.Context(), &contract.LoginRequest{Name: "ann", Password: "a guess"}); contract.CodeOf(err) {
			case contract.Unauthenticated:
				wrong.Add(1)
			case contract.RateLimited:
				if contract.AsError(err).RetryAfter <= 0 {
					t.Error("limited without a time to wait")
				}
				limited.Add(1)
			default:
				t.Errorf("got %v", err)
			}
		})
	}
	guessing.Wait()
	// Some more than the burst: as many as hash at once, and what the time that passes allows.
	if most := int32(loginBurst + 2*runtime.GOMAXPROCS(0) + 10); wrong.Load() > most || limited.Load() == 0 {
		t.Errorf("%d guesses were answered and %d limited, want at most %d answered", wrong.Load(), limited.Load(), most)
	}
	if _, err := l.Login(t.Context(), &contract.LoginRequest{Name: "bob", Password: "a guess"}); contract.CodeOf(err) != contract.Unauthenticated {
		t.Errorf("another name: %v", err)
	}
}

// Of those who register one name at once one gets it, and nobody gets a session of another's account.
func TestRegisterRace(t *testing.T) {
	l := newHouse(t).logic(t)
	const racers = 16
	grants := make([]*contract.SessionGrant, racers)
	var racing sync.WaitGroup
	for i := range racers {
		racing.Go(func() {
			g, err := l.Register(t.Context(), &contract.RegisterRequest{Name: "ann", Password: "password"})
			if err != nil && contract.CodeOf(err) != contract.Conflict {
				t.Errorf("got %v", err)
			}
			grants[i] = g
		})
	}
	racing.Wait()
	won := 0
	for _, g := range grants {
		if g != nil {
			won++
		}
	}
	if won != 1 {
		t.Errorf("%d of %d got the name", won, racers)
	}
}

func TestSingleLoginPolicy(t *testing.T) {
	h := newHouse(t)
	l := h.logic(t, func(_ *Config, a *AuthConfig) { a.LoginPolicy = PolicySingle })
	first := register(t, l, "ann")
	if _, err := l.Authenticate(t.Context(), &contract.AuthenticateRequest{Credential: first.by}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Login(t.Context(), &contract.LoginRequest{Name: "ann", Password: "password of ann"}); err != nil {
		t.Fatal(err)
	}
	_, err := l.Authenticate(t.Context(), &contract.AuthenticateRequest{Credential: first.by})
	wantCode(t, err, contract.Unauthenticated)
	if !h.told.wasClosed(contract.SessionOf(first.Token), contract.Replaced) {
		t.Error("the nodes were not told that the first session is replaced")
	}
}

func TestDemoUsers(t *testing.T) {
	h := newHouse(t)
	l := h.logic(t)
	for range 2 {
		if err := l.MakeDemoUsers(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"demo", "test", "admin"} {
		if _, err := l.Login(t.Context(), &contract.LoginRequest{Name: name, Password: demoPassword}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	other := newHouse(t)
	register(t, other.logic(t), "ann")
	if err := other.logic(t).MakeDemoUsers(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, err := other.store.CountUsers(t.Context(), canaryMark); err != nil || n != 1 {
		t.Errorf("%d users (%v) where there was one: known passwords were added", n, err)
	}
}

// What is missing of the demo users is made beside those that are there, and open to everybody are those alone that have
// the password that everybody knows.
func TestMissingDemoUsers(t *testing.T) {
	l := newHouse(t).logic(t)
	register(t, l, "demo")
	if err := l.MakeDemoUsers(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := l.DemoUsers(t.Context())
	if want := []string{"test", "admin"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("open to everybody: got %v, %v, want %v", got, err, want)
	}
}

func TestFindUsers(t *testing.T) {
	l := newHouse(t).logic(t)
	ann := register(t, l, "ann")
	register(t, l, "anton")
	register(t, l, "bob")
	for _, c := range []struct {
		name, prefix string
		limit        int
		code         contract.Code
		found        int
	}{
		{"two", "an", 0, "", 2},
		{"one of two", "an", 1, "", 1},
		{"none", "zed", 0, "", 0},
		{"with a NUL", "an\x00", 0, "", 0},
		{"nothing asked", "", 0, contract.BadRequest, 0},
		{"not UTF-8", "a\xff", 0, contract.BadRequest, 0},
		{"too long", strings.Repeat("a", 65), 0, contract.BadRequest, 0},
		{"negative page", "an", -1, contract.BadRequest, 0},
		{"page too large", "an", contract.MaxPage + 1, contract.BadRequest, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := l.FindUsers(t.Context(), &contract.FindUsersRequest{Credential: ann.by, Name: c.prefix, Limit: c.limit})
			wantCode(t, err, c.code)
			if err == nil && len(r.Users) != c.found {
				t.Errorf("found %v, want %d", r.Users, c.found)
			}
		})
	}
}
