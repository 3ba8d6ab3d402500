package layers

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"gochat/e2e/checker"
	"gochat/e2e/load"
	"gochat/layers/internal/contract"
	"gochat/layers/internal/queue"
	"gochat/layers/internal/store"
	"gochat/layers/internal/testclient"
	"gochat/layers/internal/testdeps"
	"gochat/layers/internal/testwait"
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
	queue   queue.Queue // nil if it cannot be reached from outside
	parts   []victim
	nodes   []*running // as they are now
	address load.Addresses
}

// broker starts what the queue of that driver is on.
func broker(t *testing.T, driver string) (url string, v victim) {
	t.Helper()
	switch driver {
	case DriverRabbitMQ:
		b := testdeps.RabbitMQ(t)
		return b.URL(), victim{"RabbitMQ", b.Kill, b.Start}
	case DriverKafka:
		b := testdeps.Kafka(t)
		return b.URL(), victim{"kfake, instead of Kafka", b.Stop, b.Start}
	default:
		b := keepingRedis(t)
		return "redis://" + b.Addr() + "/0", victim{"the queue's Redis", b.Kill, b.Start}
	}
}

// keepingRedis has what it was told again when it is killed and started.
func keepingRedis(t *testing.T) *testdeps.RedisServer {
	t.Helper()
	return testdeps.Redis(t, "--appendonly", "yes", "--appendfsync", "everysec")
}

// newFaulty is a system whose queue is at the URL; without one, on the Redis of the sessions.
func newFaulty(t *testing.T, driver, url string, more ...victim) *faulty {
	t.Helper()
	f := &faulty{t: t, parts: more}
	etcd := testdeps.Etcd(t)
	f.redis = keepingRedis(t)
	postgres := testdeps.StartPostgres(t)
	b := migrated(t, backend{name: "faulty", etcd: etcd.Endpoint(), redis: f.redis.Addr(), database: postgres.URL})
	f.openStore(b.database)
	cfg := b.config()
	cfg.Connect.Repair = time.Second
	cfg.Queue.Driver, cfg.Queue.URL = driver, url
	var err error
	if f.queue, err = cfg.Queue.open(cfg.Redis, nil, observability.Discard()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.queue.Close() })
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

// newFaultyUp is a system of one process, with all that it needs in it and its data in one directory.
func newFaultyUp(t *testing.T) *faulty {
	t.Helper()
	f := &faulty{t: t}
	cfg, dir := upConfig(), t.TempDir()
	cfg.Connect.Repair = time.Second
	f.addNode("up", node{DataDir: dir, Config: cfg})
	f.openStore("sqlite:" + filepath.Join(dir, "gochat.db"))
	return f
}

// openStore opens the system's database, to look into it.
func (f *faulty) openStore(url string) {
	f.t.Helper()
	var err error
	if f.store, err = store.Open(store.Config{URL: url}, observability.Discard()); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = f.store.Close() })
}

// add starts a process of one layer; it comes back at the same addresses.
func (f *faulty) add(cfg Config, layer string) {
	f.t.Helper()
	f.addNode(fmt.Sprint(layer, " ", len(f.nodes)%2+1), node{Layers: []string{layer}, Config: cfg})
}

func (f *faulty) addNode(name string, n node) {
	f.t.Helper()
	now := n.spawn(f.t)
	at := len(f.nodes)
	f.nodes = append(f.nodes, now)
	if now.API != "" {
		n.Config.API.Listen = now.API
		f.address.API = append(f.address.API, now.API)
	}
	if now.WebSocket != "" {
		n.Config.Connect.WebSocket.Listen, n.Config.Connect.TCP.Listen = now.WebSocket, now.TCP
		f.address.WebSocket = append(f.address.WebSocket, now.WebSocket)
		f.address.TCP = append(f.address.TCP, now.TCP...)
	}
	f.parts = append(f.parts, victim{
		name:     name,
		kill:     func() { f.nodes[at].kill() },
		startNew: func() { f.nodes[at] = n.spawn(f.t) },
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
		f.t.Errorf("not repaired while connected: %d\n%s", len(lacking), strings.Join(lacking[:min(len(lacking), 20)], "\n"))
	}
	if err := people.Resync(ctx); err != nil {
		f.t.Error(err)
	}
	if violations := people.Checker.Verify(); len(violations) > 0 {
		f.t.Errorf("%s", checker.Report(violations))
	}
	// What the queue has not brought is repaired, so it would not be missed.
	eventually(f.t, "nothing waits in the outbox and in the queue", func() bool { return f.outbox() == 0 && f.depth() == 0 })
	sends, acknowledged, received := people.Checker.Count()
	f.t.Logf("%d messages sent, %d acknowledged, %d received, %d sends tried again", sends, acknowledged, received, people.Retries())
	if acknowledged < 100 || received < 10*acknowledged/4 {
		f.t.Errorf("%d acknowledged and %d received: that was no load", acknowledged, received)
	}
	f.balances()
}

// sums are what the ledger of all processes adds up to: messages accepted, their ends, and those without one.
type sums struct{ accepted, ended, pending float64 }

func (f *faulty) sums() (s sums) {
	for _, r := range f.nodes {
		if r.Admin == "" {
			continue
		}
		s.accepted += metric(f.t, r, "gochat_messages_accepted_total", "")
		s.pending += metric(f.t, r, "gochat_deliveries_pending", "")
		for _, outcome := range []string{"written", "queued", "slow", "gone", "lost"} {
			s.ended += metric(f.t, r, "gochat_connect_deliveries_total", `outcome="`+outcome+`"`)
		}
		for _, outcome := range []string{"offline", "error"} {
			s.ended += metric(f.t, r, "gochat_deliveries_total", `outcome="`+outcome+`"`)
		}
	}
	return s
}

// balances: after all faults, what is accepted from now on has an end for everybody it is due to, and none twice. Counts of
// before went with the processes that were killed.
func (f *faulty) balances() {
	f.t.Helper()
	const people, messages = 4, 25
	eventually(f.t, "nothing is pending", func() bool { return f.sums().pending == 0 })
	api := "http://" + f.address.API[0]
	u := testclient.Register(f.t, api, fmt.Sprint("ledger-", rand.Uint32()))
	away := testclient.Register(f.t, api, u.Name+"-away")
	var room struct{ ID int }
	u.Must(f.t, http.MethodPost, "/v1/rooms", map[string]any{"name": u.Name}, &room)
	var conns []*testclient.Conn
	for i := range people {
		c := testclient.TCP(f.t, f.address.TCP[i%len(f.address.TCP)])
		defer c.Close()
		c.Enter(f.t, u, room.ID)
		conns = append(conns, c)
	}
	before := f.sums()
	for i := range messages {
		conns[i%people].Send(f.t, map[string]any{"op": 3, "roomId": room.ID, "msg": fmt.Sprint("room ", i)})
		conns[i%people].Send(f.t, map[string]any{"op": 2, "toUserId": away.ID, "msg": fmt.Sprint("away ", i)})
	}
	// A room message is due to all; a private one to who is away, and to the sender's other connections.
	due := float64(messages*people + messages*people)
	now := before
	balanced := func() bool {
		now = f.sums()
		return now.accepted-before.accepted == 2*messages && now.ended-before.ended == due && now.pending == 0
	}
	if !testwait.Soon(balanced) {
		f.t.Errorf("%v accepted, %v ended, %v pending; want %v, %v and none", now.accepted-before.accepted, now.ended-before.ended, now.pending, 2*messages, due)
	}
	time.Sleep(200 * time.Millisecond) // for what is counted twice
	if !balanced() {
		f.t.Errorf("%v ended, want %v as before", now.ended-before.ended, due)
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

// TestFaults kills every part of a system once and some of them twice, at random moments, while people chat: nothing that was
// acknowledged is lost, doubled, out of order or in another's name. In place of Kafka there is kfake, in this process,
// which can only be closed.
func TestFaults(t *testing.T) {
	t.Run(DriverRedis, func(t *testing.T) {
		newFaulty(t, DriverRedis, "").killInTurn(seed(t), rounds(13))
	})
	for _, driver := range []string{DriverRabbitMQ, DriverKafka} {
		t.Run(driver, func(t *testing.T) {
			url, itself := broker(t, driver)
			newFaulty(t, driver, url, itself).killInTurn(seed(t), rounds(13))
		})
	}
}

// TestUpKilled kills everything at once, again and again: `gochat up`, whose etcd, Redis and SQLite are in the process.
// Sessions and the queue die with it, and it comes back on the same directory.
func TestUpKilled(t *testing.T) {
	newFaultyUp(t).killInTurn(seed(t), rounds(6))
}

// killInTurn kills parts while people chat, and starts each again: every part once, in random order, before any a
// second time.
func (f *faulty) killInTurn(seed uint64, rounds int) {
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
			order = random.Perm(len(f.parts))
		}
		p := f.parts[order[0]]
		order = order[1:]
		_, before, _ := people.Checker.Count()
		eventually(f.t, "people chat", func() bool { _, now, _ := people.Checker.Count(); return now >= before+20 })
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
	f := newFaulty(t, DriverRedis, "")
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
	for _, driver := range []string{DriverRedis, DriverRabbitMQ, DriverKafka} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel() // with one another: most of it is waiting
			url, itself := broker(t, driver)
			newFaulty(t, driver, url).queueAway(itself)
		})
	}
}

func (f *faulty) queueAway(broker victim) {
	f.t.Helper()
	const away = 30 * time.Second
	ctx, cancel := context.WithCancel(f.t.Context())
	people := f.crowd(ctx, seed(f.t))
	people.Start(ctx)
	defer people.Wait()
	defer cancel()
	time.Sleep(time.Second)
	_, before, _ := people.Checker.Count()
	broker.kill()
	time.Sleep(away)
	_, after, _ := people.Checker.Count()
	waiting := f.outbox()
	f.t.Logf("%d messages acknowledged without a queue, %d in the outbox", after-before, waiting)
	if after-before < 200 || waiting < int64(after-before)*9/10 {
		f.t.Error("want messages to be accepted all the time, and to wait in the outbox")
	}
	broker.startNew()
	f.settle(people)
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

// depth is how many items wait in the queue, if it can be reached; not 0 while it does not say.
func (f *faulty) depth() (sum int64) {
	if f.queue == nil {
		return 0
	}
	ctx, cancel := context.WithTimeout(f.t.Context(), load.Patience)
	defer cancel()
	stats, err := f.queue.Stats(ctx)
	if err != nil {
		return -1
	}
	for _, p := range stats.Partitions {
		sum += p.Depth
	}
	return sum
}
