package live

import (
	"math"
	"slices"
	"sync"
	"testing"
	"time"
)

// TestContention has a system with one bucket and one with 32 under the same load of joining, leaving and fan-out: the dashboard
// tells them apart, by ratio and by wait, ten times and more in the median of the rounds: where a goroutine that holds a lock
// loses its processor to another process, one wait of 30 ms is more than all the others of 32 buckets together.
func TestContention(t *testing.T) {
	bin := Build(t)
	one, many := Up(t, bin, "connect.buckets=1"), Up(t, bin, "connect.buckets=32")
	prometheus := Scrape(t, nil, one.Admin(), many.Admin())
	panels := Panels(t, "..")
	const rounds, length = 5, 4 * time.Second
	titles := []string{"Contended", "Time waited", "Lock taken"}
	seen := make(map[*System][3][]float64)
	for range rounds { // by turns: what else the machine does then is of both, and of a round or two
		for _, s := range []*System{one, many} {
			began := time.Now()
			var load sync.WaitGroup
			load.Go(func() {
				s.Bench(t, "fanout", "--members", "600", "--users", "100", "--rate", "100", "--for", length.String(), "--user-prefix", "fan-")
			})
			load.Go(func() { // longer, since it has come in sooner
				s.Bench(t, "churn", "--connections", "200", "--users", "100", "--for", (length + 3*time.Second).String(), "--user-prefix", "churn-")
			})
			load.Wait()
			all := seen[s]
			for i, title := range titles {
				value, _ := Highest(prometheus.Ask(t, For(Find(t, panels, "locks.json", title).Exprs[0], s.Admin(), time.Since(began)+time.Second)))
				all[i] = append(all[i], value)
			}
			seen[s] = all
		}
	}
	t.Logf("one bucket: %.4f contended, %.6f s/s waited; 32: %.4f, %.6f", seen[one][0], seen[one][1], seen[many][0], seen[many][1])
	for s, name := range map[*System]string{one: "one bucket", many: "32 buckets"} { // that each was asked, and worked as much
		if taken := median(seen[s][2]); taken < 100 {
			t.Errorf("%s: its locks were taken %v times a second: too little to compare", name, taken)
		}
	}
	for i, what := range []string{"contended ratio", "time waited"} {
		if a, b := median(seen[one][i]), median(seen[many][i]); a == 0 || a < 10*b || math.IsNaN(a) {
			t.Errorf("%s: %v with one bucket, %v with 32: want ten times as much", what, a, b)
		}
	}
}

// median is the middle one of an odd number of values.
func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// TestHottestRoom has a room of 1,000 beside rooms of 10, and some messages in each: the dashboard shows it as the hottest
// by far, with its members and its time.
func TestHottestRoom(t *testing.T) {
	const big, small = 1000, 10
	bin := Build(t)
	s := Up(t, bin)
	prometheus := Scrape(t, nil, s.Admin())
	panels := Panels(t, "..")
	const length = 15 * time.Second
	ask := func(title string, query int) (float64, string) {
		value, of := Highest(prometheus.Ask(t, For(Find(t, panels, "fanout.json", title).Exprs[query], "", length)))
		return value, string(of["room"])
	}
	smallOnly := func(title string, query int) float64 { value, _ := ask(title, query); return value }

	s.Bench(t, "rooms", "--rooms", "20", "--members", "10", "--users", "100", "--rate", "40", "--for", length.String(), "--user-prefix", "small-")
	members, took := smallOnly("Members per message", 2), smallOnly("First to last write", 2)
	if members > 2*small || members == 0 {
		t.Errorf("rooms of %d alone: a p99 of %v members", small, members)
	}
	var load sync.WaitGroup
	load.Go(func() {
		s.Bench(t, "rooms", "--rooms", "20", "--members", "10", "--users", "100", "--rate", "40", "--for", length.String(), "--user-prefix", "small-")
	})
	load.Go(func() {
		s.Bench(t, "fanout", "--members", "1000", "--users", "100", "--rate", "10", "--for", length.String(), "--user-prefix", "big-")
	})
	load.Wait()
	hottest, room := ask("Hottest rooms", 0)
	all := prometheus.Ask(t, For(Find(t, panels, "fanout.json", "Hottest rooms").Exprs[0], "", length))
	second := 0.0
	for _, r := range all {
		if string(r.Metric["room"]) != room {
			second = max(second, float64(r.Value))
		}
	}
	t.Logf("room %s: %.0f deliveries/s, the next %.0f; p99 of members %v, with rooms of 10 alone %v; of the time %v s, %v s",
		room, hottest, second, smallOnly("Members per message", 2), members, smallOnly("First to last write", 2), took)
	if hottest < 10*second || second == 0 || len(all) < 20 {
		t.Errorf("the hottest has %v deliveries/s, the next %v, of %d: want ten times as many, of 20", hottest, second, len(all))
	}
	if n, of := ask("Members of the hottest rooms", 0); of != room || n < 0.99*big || n > big {
		t.Errorf("room %s has the most members, %v; want room %s with its %d", of, n, room, big)
	}
	if slowest, of := ask("Slowest of the hottest rooms", 0); of != room || slowest == 0 {
		t.Errorf("room %s is the slowest, with %v s; want room %s", of, slowest, room)
	}
	if now := smallOnly("Members per message", 2); now < big/2 {
		t.Errorf("a p99 of %v members, want those of the big room", now)
	}
	if now := smallOnly("First to last write", 2); now < 2*took {
		t.Errorf("from first to last write %v s, with rooms of %d alone %v", now, small, took)
	}
}
