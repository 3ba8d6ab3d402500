package queuetest

import (
	"context"
	"errors"
	"sync"
	"testing"

	"gochat/layers/internal/testwait"
)

func TestOwnersAreExclusiveAndFair(t *testing.T) {
	const n, members = 8, 3
	o := NewOwners()
	var mu sync.Mutex
	owner := make(map[int]int) // partition → member + 1
	count := func() (owned, fair int) {
		mu.Lock()
		defer mu.Unlock()
		per := make(map[int]int)
		for _, m := range owner {
			per[m]++
		}
		for _, c := range per {
			if c >= n/members && c <= n/members+1 {
				fair++
			}
		}
		return len(owner), fair
	}
	var stops []func()
	for m := 1; m <= members; m++ {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- o.Run(ctx, n, func(ctx context.Context, p int) error {
				mu.Lock()
				if other := owner[p]; other != 0 {
					t.Errorf("partition %d has owners %d and %d", p, other, m)
				}
				owner[p] = m
				mu.Unlock()
				<-ctx.Done()
				mu.Lock()
				delete(owner, p)
				mu.Unlock()
				return nil
			})
		}()
		stops = append(stops, func() {
			cancel()
			if err := testwait.Receive(t, "Run returns", ended); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	eventually(t, "all partitions are owned, in fair shares", func() bool {
		owned, fair := count()
		return owned == n && fair == members
	})
	stops[0]()
	eventually(t, "the others take over", func() bool { owned, _ := count(); return owned == n })
	stops[1]()
	stops[2]()
	if owned, _ := count(); owned != 0 {
		t.Errorf("%d partitions are owned after everyone has left", owned)
	}
}

func TestOwnersFailWithOwn(t *testing.T) {
	want := errors.New("broken")
	err := NewOwners().Run(t.Context(), 2, func(context.Context, int) error { return want })
	if !errors.Is(err, want) {
		t.Errorf("Run: %v, want %v", err, want)
	}
}
