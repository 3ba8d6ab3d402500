package layers

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"gochat/e2e/checker"
	"gochat/e2e/load"
	"gochat/layers/internal/contract"
	"gochat/layers/internal/store"
	"gochat/layers/internal/testdeps"
	"gochat/observability"
)

// victim is something of a system under load that can die and be started again.
type victim struct {
	name           string
	kill, startNew func()
}

// faulty is a system of processes on real dependencies, each of which can die.
type faulty struct {
	t       *testing.T
	redis   *testdeps.RedisServer
	store   *store.Store
	parts   []victim
	nodes   []*running // as they are now
	address load.Addresses
}

func newFaulty(t *testing.T, change func(*Config)) *faulty {
	t.Helper()
	f := &faulty{t: t}
	etcd := testdeps.Etcd(t)
	f.redis = testdeps.Redis(t, "--appendonly", "yes", "--appendfsync", "everysec")
	postgres := testdeps.StartPostgres(t)
	b := migrated(t, backend{name: "faulty", etcd: etcd.Endpoint(), redis: f.redis.Addr(), database: postgres.URL})
	var err error
	if f.store, err = store.Open(store.Config{URL: b.database}, observability.Discard()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.store.Close() })
	cfg := b.config()
	cfg.Connect.Repair = time.Second
	if change != nil {
		change(&cfg)
	}
	f.parts = append(f.parts,
		victim{"Redis", f.redis.Kill, f.redis.Start},
		victim{"PostgreSQL", func() { postgres.Kill(t) }, func() { postgres.Start(t) }},
		victim{"etcd", etcd.Kill, etcd.Start})
	for _, layer := range []string{contract.LayerLogic, contract.LayerTask, contract.LayerConnect, contract.LayerAPI} {
		for range 2 {
			f.add(cfg, layer)
		}
	}
	return f
}

// add starts a process of one layer; it comes back at the same addresses.
func (f *faulty) add(cfg Config, layer string) {
	f.t.Helper()
	now := spawn(f.t, cfg, layer)
	at := len(f.nodes)
	f.nodes = append(f.nodes, now)
	switch layer {
	case contract.LayerAPI:
		cfg.API.Listen = now.API
		f.address.API = append(f.address.API, now.API)
	case contract.LayerConnect:
		cfg.Connect.WebSocket.Listen, cfg.Connect.TCP.Listen = now.WebSocket, now.TCP
		f.address.WebSocket = append(f.address.WebSocket, now.WebSocket)
		f.address.TCP = append(f.address.TCP, now.TCP...)
	}
	f.parts = append(f.parts, victim{
		name:     fmt.Sprint(layer, " ", at%2+1),
		kill:     func() { f.nodes[at].kill() },
		startNew: func() { f.nodes[at] = spawn(f.t, cfg, layer) },
	})
}

// crowd is people who chat on the system.
func (f *faulty) crowd(ctx context.Context, seed uint64) *load.Crowd {
	f.t.Helper()
	people, err := load.New(ctx, 10, load.Options{
		Addresses: f.address, Room: int64(contract.Lobby), Pause: 120 * time.Millisecond, Seed: seed,
		Log: func(format string, args ...any) {
			if testing.Verbose() {
				f.t.Logf(format, args...)
			}
		},
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return people
}

// settle ends the chatting, and fails the test for every word that the system has broken.
func (f *faulty) settle(people *load.Crowd) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), time.Minute)
	defer cancel()
	if err := people.Stop(ctx); err != nil {
		f.t.Error(err)
	}
	// People who lack something while they are connected need not know: the system repairs by itself.
	within, cancelWait := context.WithTimeout(ctx, 30*time.Second)
	lacking := people.Lacking(within)
	cancelWait()
	if len(lacking) > 0 {
		f.t.Errorf("not repaired while connected: %d, as %s", len(lacking), lacking[0])
	}
	if err := people.Resync(ctx); err != nil {
		f.t.Error(err)
	}
	if violations := people.Checker.Verify(); len(violations) > 0 {
		f.t.Errorf("%s", checker.Report(violations))
	}
	sends, acknowledged, received := people.Checker.Count()
	f.t.Logf("%d messages sent, %d acknowledged, %d received, %d sends tried again", sends, acknowledged, received, people.Retries())
	if acknowledged < 100 || received < 10*acknowledged/4 {
		f.t.Errorf("%d acknowledged and %d received: that was no load", acknowledged, received)
	}
}

// seed is from the environment, to go through the same again, or new.
func seed(t *testing.T) uint64 {
	s := rand.Uint64()
	if told, err := strconv.ParseUint(os.Getenv("FAULTS_SEED"), 10, 64); err == nil {
		s = told
	}
	t.Logf("FAULTS_SEED=%d", s)
	return s
}

// rounds is how many times a part is killed, each part in turn.
func rounds(otherwise int) int {
	if told, err := strconv.Atoi(os.Getenv("FAULTS_ROUNDS")); err == nil {
		return told
	}
	return otherwise
}

// TestFaults kills every part of a system in turn, at random moments, while people chat: nothing that was
// acknowledged is lost, doubled, out of order or in another's name.
func TestFaults(t *testing.T) {
	f := newFaulty(t, nil)
	f.killInTurn(seed(t), rounds(20), f.parts)
}

// killInTurn kills parts while people chat, and starts each again.
func (f *faulty) killInTurn(seed uint64, rounds int, parts []victim) {
	f.t.Helper()
	random := rand.New(rand.NewPCG(seed, 1))
	ctx, cancel := context.WithCancel(f.t.Context())
	people := f.crowd(ctx, seed)
	people.Start(ctx)
	defer people.Wait()
	defer cancel()
	moment := func(most time.Duration) time.Duration { return time.Duration(random.Int64N(int64(most))) }
	start := time.Now()
	time.Sleep(time.Second)
	var order []int
	for range rounds {
		if len(order) == 0 {
			order = random.Perm(len(parts))
		}
		p := parts[order[0]]
		order = order[1:]
		time.Sleep(moment(time.Second))
		f.t.Logf("%s: kill %s", time.Since(start).Round(time.Millisecond), p.name)
		p.kill()
		time.Sleep(moment(2 * time.Second))
		p.startNew()
		f.t.Logf("%s: %s is back", time.Since(start).Round(time.Millisecond), p.name)
	}
	f.settle(people)
}

// TestRedisWiped empties Redis while people chat. Sessions are gone and people log in again; no message is lost and
// no seq moves back.
func TestRedisWiped(t *testing.T) {
	f := newFaulty(t, nil)
	s := seed(t)
	ctx, cancel := context.WithCancel(t.Context())
	people := f.crowd(ctx, s)
	people.Start(ctx)
	defer people.Wait()
	defer cancel()
	time.Sleep(2 * time.Second)
	for range 2 {
		f.redis.Kill()
		f.redis.Wipe()
		f.redis.Start()
		time.Sleep(3 * time.Second)
	}
	f.settle(people)
	if all := f.logs(); strings.Contains(all, "panic") {
		t.Error("a process has panicked")
	}
}

func (f *faulty) logs() string {
	var all strings.Builder
	for _, n := range f.nodes {
		all.WriteString(n.log.String())
	}
	return all.String()
}

// TestQueueAway takes the queue away for half a minute while people chat: what they send is accepted and stays in
// the outbox, and all of it comes, in order, when the queue is back.
func TestQueueAway(t *testing.T) {
	broker := testdeps.Redis(t, "--appendonly", "yes", "--appendfsync", "everysec")
	f := newFaulty(t, func(c *Config) { c.Queue.URL = "redis://" + broker.Addr() + "/0" })
	f.queueAway(broker.Kill, broker.Start)
}

func (f *faulty) queueAway(kill, start func()) {
	f.t.Helper()
	const away = 30 * time.Second
	ctx, cancel := context.WithCancel(f.t.Context())
	people := f.crowd(ctx, seed(f.t))
	people.Start(ctx)
	defer people.Wait()
	defer cancel()
	time.Sleep(time.Second)
	_, before, _ := people.Checker.Count()
	kill()
	time.Sleep(away)
	_, after, _ := people.Checker.Count()
	waiting := f.outbox()
	f.t.Logf("%d messages acknowledged without a queue, %d in the outbox", after-before, waiting)
	if after-before < 200 || waiting < int64(after-before)*9/10 {
		f.t.Error("want messages to be accepted all the time, and to wait in the outbox")
	}
	start()
	f.settle(people)
	eventually(f.t, "the outbox is empty", func() bool { return f.outbox() == 0 })
}

// outbox answers how many rows wait in it.
func (f *faulty) outbox() int64 {
	f.t.Helper()
	n, _, err := f.store.OutboxSize(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	return n
}
