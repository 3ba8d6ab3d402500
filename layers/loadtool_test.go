package layers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gochat/layers/internal/bench"
	"gochat/layers/internal/testclient"
	"gochat/layers/internal/testlog"
	"gochat/layers/internal/testwait"
)

// loaded runs the load tool against the address and answers its report.
func loaded(t *testing.T, ctx context.Context, r *running, change func(*BenchOptions)) (*bench.Report, error) {
	t.Helper()
	o := BenchDefaults()
	o.API, o.WebSocket, o.TCP, o.Password = r.api(), []string{r.WebSocket}, r.TCP, "password"
	o.For, o.Drain, o.Rate, o.JSON = time.Second, testwait.Patience, 100, filepath.Join(t.TempDir(), "report.json")
	o.Processes = []BenchProcess{{Name: "this", PID: os.Getpid()}}
	change(&o)
	var out, progress testlog.Buffer
	err := Bench(ctx, o, &out, &progress)
	t.Logf("%s\n%s%s", o.Scenario, &progress, &out)
	var usage *BenchUsageError
	if errors.As(err, &usage) {
		t.Fatal(err)
	}
	content, readErr := os.ReadFile(o.JSON)
	if readErr != nil {
		t.Fatalf("no report: %v, %v", err, readErr)
	}
	report := new(bench.Report)
	if err := json.Unmarshal(content, report); err != nil {
		t.Fatal(err)
	}
	return report, err
}

// unhurried is a lease that a system keeps on a machine that is at its limit: what it does without one is no matter here.
const unhurried = 20 * time.Second

// TestBench runs each scenario of the load tool, small, and finds what it counts to add up.
func TestBench(t *testing.T) {
	t.Parallel()
	cfg := embeddedBackend(t).config()
	cfg.Connect.Ping, cfg.Etcd.LeaseTTL = time.Second, unhurried
	system := start(t, cfg, All()...)
	ctx := t.Context()
	clean := func(t *testing.T, report *bench.Report, err error, deliveries int64) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
		for _, p := range report.Phases {
			if p.Sent != 100 || p.Acknowledged != 100 || p.Expected != deliveries || p.Received != deliveries || p.Lost+p.Duplicated+p.Unexpected != 0 {
				t.Errorf("got %+v", p)
			}
			if p.Delivery.Count != deliveries || p.Delivery.P50 <= 0 || p.Use.Each <= 0 {
				t.Errorf("nothing measured: %+v", p)
			}
		}
	}
	// One after another: they share the rooms.
	for _, transport := range []string{bench.WebSocket, bench.TCP} {
		t.Run(transport, func(t *testing.T) {
			t.Run(bench.Fanout, func(t *testing.T) {
				report, err := loaded(t, ctx, system, func(o *BenchOptions) {
					o.Scenario, o.Transport, o.Members, o.Users = bench.Fanout, transport, 50, 20
				})
				clean(t, report, err, 50*100)
			})
			t.Run(bench.Rooms, func(t *testing.T) {
				report, err := loaded(t, ctx, system, func(o *BenchOptions) {
					o.Scenario, o.Transport, o.Rooms, o.Members = bench.Rooms, transport, 10, 5
				})
				clean(t, report, err, 5*100)
			})
			t.Run(bench.Private, func(t *testing.T) {
				report, err := loaded(t, ctx, system, func(o *BenchOptions) {
					o.Scenario, o.Transport, o.Pairs = bench.Private, transport, 25
				})
				clean(t, report, err, 100)
			})
			t.Run(bench.Slow, func(t *testing.T) {
				report, err := loaded(t, ctx, system, func(o *BenchOptions) {
					o.Scenario, o.Transport, o.Members, o.Silent, o.Size = bench.Slow, transport, 20, 5, 8<<10
				})
				if err == nil || !strings.Contains(err.Error(), "none of 5 members who never read") || !strings.Contains(err.Error(), "too little") {
					t.Errorf("got %v, though the kernel holds what is sent to each", err)
				}
				clean(t, report, nil, 20*100)
				if len(report.Phases) != 2 || len(report.Faults) != 1 {
					t.Errorf("got %d phases, %v", len(report.Phases), report.Faults)
				}
			})
			t.Run(bench.Idle, func(t *testing.T) {
				report, err := loaded(t, ctx, system, func(o *BenchOptions) {
					o.Scenario, o.Transport, o.Connections, o.For = bench.Idle, transport, 50, 2*time.Second
				})
				if err != nil || report.Idle.Up != 50 || report.Connections.Answers < 50 {
					t.Errorf("%v: %d up, %d pings answered", err, report.Idle.Up, report.Connections.Answers)
				}
			})
			t.Run(bench.Churn, func(t *testing.T) {
				report, err := loaded(t, ctx, system, func(o *BenchOptions) {
					o.Scenario, o.Transport, o.Connections, o.Users = bench.Churn, transport, 50, 25
				})
				if err != nil || len(report.Churn.Rounds) == 0 {
					t.Fatalf("%v: %+v", err, report.Churn)
				}
				for _, r := range report.Churn.Rounds {
					if r.Up != 50 || r.Counted < 0 || r.Gone < 0 {
						t.Errorf("got %+v", r)
					}
				}
			})
		})
	}
	t.Run("closed as slow", func(t *testing.T) {
		report, err := loaded(t, ctx, system, func(o *BenchOptions) {
			o.Scenario, o.Transport, o.Members, o.Senders, o.Silent, o.Size = bench.Slow, bench.TCP, 6, 6, 2, 16<<10
			o.For, o.Rate = 2*time.Second, 200 // more than the kernel and the queue of a connection hold
		})
		if err != nil || len(report.Phases) != 2 || report.Phases[1].SilentClosed != 2 {
			t.Errorf("%v: %+v", err, report.Phases)
		}
	})
	t.Run("session ended", func(t *testing.T) {
		user := testclient.Register(t, system.api(), "ending-0001")
		report, err := loaded(t, ctx, system, func(o *BenchOptions) {
			o.Scenario, o.Connections, o.For, o.UserPrefix, o.Password = bench.Idle, 3, 5*time.Second, "ending-", "secret-password"
			time.AfterFunc(4*time.Second, func() { _, _, _ = user.Try("DELETE", "/v1/sessions", nil) }) // all but its own
		})
		if err == nil || !strings.Contains(err.Error(), "1 connections ended: close 4001") || report.Idle.Up != 2 || report.Idle.Mute != 0 {
			t.Errorf("%v: %+v", err, report.Idle)
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		ctx, cancel := context.WithCancel(ctx)
		began := time.Now()
		report, err := loaded(t, ctx, system, func(o *BenchOptions) {
			o.Scenario, o.Transport, o.Members, o.For = bench.Fanout, bench.TCP, 10, time.Hour
			time.AfterFunc(2*time.Second, cancel)
		})
		p := report.Phases[0]
		if err != nil || !report.Interrupted || p.Sent == 0 || p.Received != p.Sent*10 || p.Lost != 0 || time.Since(began) > 30*time.Second {
			t.Errorf("%v: %+v", err, p)
		}
	})
	t.Run("refused", func(t *testing.T) {
		report, err := loaded(t, ctx, system, func(o *BenchOptions) {
			o.Scenario, o.Connections, o.WebSocket = bench.Idle, 3, []string{system.API} // which knows no /ws
		})
		if err == nil || report.Connections.Failed != 3 || !strings.Contains(err.Error(), "3 connections did not come up") {
			t.Errorf("%v: %+v", err, report.Connections)
		}
	})
}

// TestBenchTellsLoss cuts one of the load tool's connections, or takes a message out of one: the tool tells.
func TestBenchTellsLoss(t *testing.T) {
	t.Parallel()
	cfg := embeddedBackend(t).config()
	cfg.Etcd.LeaseTTL = unhurried
	system := start(t, cfg, All()...)
	for name, c := range map[string]struct {
		meddle func(n int, packet []byte) (keep, cut bool) // n counts the messages to one connection
		lost   int64
		want   string
	}{
		"cut":   {func(n int, _ []byte) (bool, bool) { return n < 50, n >= 50 }, 50, "1 connections ended: end of stream"},
		"eaten": {func(n int, _ []byte) (bool, bool) { return n != 30, false }, 1, "1 of 1000 deliveries were lost"},
	} {
		t.Run(name, func(t *testing.T) {
			proxied := *system
			proxied.TCP = []string{meddler(t, system.TCP[0], c.meddle)}
			report, err := loaded(t, t.Context(), &proxied, func(o *BenchOptions) {
				o.Scenario, o.Transport, o.Members, o.Senders, o.Drain = bench.Fanout, bench.TCP, 10, 1, 5*time.Second
			})
			p := report.Phases[0]
			if err == nil || p.Lost != c.lost || p.Lost != p.Expected-p.Received || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v: %+v", err, p)
			}
		})
	}
}

// meddler is before the address, and does with the messages to the fifth connection, which does not send, what it is
// told.
func meddler(t *testing.T, addr string, meddle func(n int, packet []byte) (keep, cut bool)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); serving.Wait() })
	serving.Go(func() {
		for number := 1; ; number++ {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", addr)
			if err != nil {
				t.Error(err)
				return
			}
			closeBoth := func() { _ = client.Close(); _ = server.Close() }
			serving.Go(func() {
				defer closeBoth()
				packets := testclient.NewPackets(client)
				for {
					p, err := packets.Next()
					if err != nil {
						return
					}
					if _, err := server.Write(testclient.Packet(p)); err != nil {
						return
					}
				}
			})
			serving.Go(func() {
				defer closeBoth()
				packets, n := testclient.NewPackets(server), 0
				for {
					p, err := packets.Next()
					if err != nil {
						return
					}
					if number == 5 && bytes.Contains(p, []byte(`"op":3`)) {
						keep, cut := meddle(n, p)
						n++
						if cut {
							return
						}
						if !keep {
							continue
						}
					}
					if _, err := client.Write(testclient.Packet(p)); err != nil {
						return
					}
				}
			})
		}
	})
	return l.Addr().String()
}
