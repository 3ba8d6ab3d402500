// Package testwait is how tests wait for what other goroutines and processes do: up to a moment that only a broken
// promise meets. It is for tests alone.
package testwait

import (
	"testing"
	"time"
)

// Patience bounds every wait that is not told otherwise: much longer than anything takes.
const Patience = 60 * time.Second

// pause between two looks: short beside what is waited for, long beside what a look costs.
const pause = 5 * time.Millisecond

// Eventually polls until ok, and ends the test if that does not come. It calls ok from the caller's goroutine.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	Within(t, Patience, what, ok)
}

// Within is Eventually for what is promised within a time.
func Within(t testing.TB, within time.Duration, what string, ok func() bool) {
	t.Helper()
	if !soon(within, ok) {
		t.Fatalf("not within %v: %s", within, what)
	}
}

// Soon is Eventually for whoever has more to say when it does not come.
func Soon(ok func() bool) bool { return soon(Patience, ok) }

func soon(within time.Duration, ok func() bool) bool {
	for deadline := time.Now().Add(within); !ok(); time.Sleep(pause) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// Receive receives from c, and ends the test if nothing comes.
func Receive[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(Patience):
		t.Fatalf("not within %v: %s", Patience, what)
		panic("unreachable")
	}
}
