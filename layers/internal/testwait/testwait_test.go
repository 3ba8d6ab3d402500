package testwait

import (
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// failing is a test whose failure is looked at.
type failing struct {
	testing.TB
	said string
}

func (f *failing) Helper() {}

func (f *failing) Fatalf(format string, args ...any) {
	f.said = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// TestWaits: what comes is not waited for longer than that; what does not come ends the test, which says what it was.
func TestWaits(t *testing.T) {
	const never = 365 * 24 * time.Hour
	waits := map[string]func(testing.TB, time.Duration){
		"eventually": func(t testing.TB, after time.Duration) {
			came := time.Now().Add(after)
			Eventually(t, "the guest", func() bool { return !time.Now().Before(came) })
		},
		"within": func(t testing.TB, after time.Duration) {
			came := time.Now().Add(after)
			Within(t, Patience, "the guest", func() bool { return !time.Now().Before(came) })
		},
		"receive": func(t testing.TB, after time.Duration) {
			guest := make(chan int, 1)
			time.AfterFunc(after, func() { guest <- 7 })
			if got := Receive(t, "the guest", guest); got != 7 {
				t.Errorf("got %d, want 7", got)
			}
		},
	}
	for name, wait := range waits {
		for after, want := range map[time.Duration]string{
			0: "", time.Second: "", Patience - time.Second: "", Patience + time.Second: "not within 1m0s: the guest", never: "not within 1m0s: the guest",
		} {
			t.Run(fmt.Sprintf("%s, after %v", name, after), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := &failing{TB: t}
					start, done := time.Now(), make(chan struct{})
					go func() { defer close(done); wait(f, after) }()
					<-done
					if took := time.Since(start); f.said != want || took < min(after, Patience) || took > min(after, Patience)+pause {
						t.Errorf("after %v it said %q, want %q after %v", took, f.said, want, min(after, Patience))
					}
				})
			})
		}
	}
}
