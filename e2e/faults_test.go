//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"gochat/e2e/checker"
	"gochat/e2e/load"
)

// chatting is people who chat while something is being broken.
type chatting struct {
	*load.Crowd
	t      *testing.T
	room   int64
	cancel context.CancelFunc
}

// chat has ten people begin.
func (s *split) chat(t *testing.T) *chatting {
	t.Helper()
	var room struct{ ID int64 } // where nobody else has said anything
	s.must(t, s.register(t, unique("host")), http.MethodPost, "/v1/rooms", object{"name": unique("chat")}, &room)
	ctx, cancel := context.WithCancel(context.Background())
	seed := rand.Uint64()
	people, err := load.New(ctx, 10, load.Options{Addresses: s.Addresses, Room: room.ID, Pause: 150 * time.Millisecond, Seed: seed, Log: func(string, ...any) {}})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	people.Start(ctx)
	c := &chatting{people, t, room.ID, cancel}
	t.Cleanup(func() { cancel(); people.Wait() })
	c.flows()
	return c
}

// flows waits until so much more is acknowledged and received that they do chat.
func (c *chatting) flows() {
	c.t.Helper()
	_, acked, came := c.Checker.Count()
	eventually(c.t, "people chat", func() bool {
		_, nowAcked, nowCame := c.Checker.Count()
		return nowAcked >= acked+30 && nowCame >= came+200
	})
}

// settle ends the chatting. Whatever was acknowledged has to be with everybody, whether they ask for it or not.
func (c *chatting) settle() {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*within)
	defer cancel()
	defer c.cancel()
	if err := c.Stop(ctx); err != nil {
		c.t.Error(err)
	}
	repaired, stop := context.WithTimeout(ctx, within)
	lacking := c.Lacking(repaired)
	stop()
	if len(lacking) > 0 {
		c.t.Errorf("%d not repaired while connected, as %s", len(lacking), lacking[0])
	}
	if err := c.Resync(ctx); err != nil {
		c.t.Error(err)
	}
	if violations := c.Checker.Verify(); len(violations) > 0 {
		c.t.Error(checker.Report(violations))
	}
	sends, acked, came := c.Checker.Count()
	c.t.Logf("%d messages sent, %d acknowledged, %d received, %d sends tried again", sends, acked, came, c.Retries())
}

// kill ends the container's process by SIGKILL, as the kernel would: the engine starts it anew.
func (s *split) kill(c *container) {
	s.t.Helper()
	if err := syscall.Kill(c.State.Pid, syscall.SIGKILL); err != nil {
		s.t.Fatalf("%s: %v", c, err)
	}
	eventually(s.t, c.String()+" runs again", func() bool {
		now := inspect(s.t, c.ID)[0]
		return now.State.Running && now.State.Pid != c.State.Pid
	})
}

// killed: every container dies by SIGKILL in turn.
func (s *split) killed(t *testing.T) {
	s.kills(t, "logic", "task", "connect", "api", "site", "proxy", "redis", "postgres", "etcd2")
}

func (s *split) kills(t *testing.T, services ...string) {
	people := s.chat(t)
	for _, service := range services {
		c := s.one(service)
		s.kill(c)
		t.Logf("%s was killed", c)
		s.awaitReady()
		people.flows()
	}
	people.settle()
}

// paused: every container stands still for longer than a lease, in turn, and goes on as if nothing had been.
func (s *split) paused(t *testing.T) {
	s.pauses(t, "logic", "task", "connect", "api", "redis", "postgres", "etcd1")
}

func (s *split) pauses(t *testing.T, services ...string) {
	people := s.chat(t)
	for _, service := range services {
		c := s.one(service)
		func() {
			defer pause(t, []*container{c})()
			time.Sleep(7 * time.Second) // longer than a lease
		}()
		t.Logf("%s was paused", c)
		s.awaitReady()
		people.flows()
	}
	people.settle()
}

// refuses: a message is not accepted, and its sender is told so.
func (s *split) refuses(t *testing.T) {
	t.Helper()
	eventually(t, "a message that is refused", func() bool {
		status, body := s.do(t, s.somebody, http.MethodPost, "/v1/rooms/1/messages", object{"msg": "who accepts this?"})
		var problem struct{ Code string }
		return json.Unmarshal(body, &problem) == nil && status == http.StatusServiceUnavailable && problem.Code == "unavailable"
	})
}

// cut has no packet pass between the two until mended. It is the first one's firewall that drops them.
func cut(t *testing.T, a, b *container) (mend func()) {
	t.Helper()
	ip := strings.TrimSuffix(b.addr("_layers", 0), ":0")
	rules := [][]string{{"OUTPUT", "-d", ip, "-j", "DROP"}, {"INPUT", "-s", ip, "-j", "DROP"}}
	change := func(do string, rule []string) error {
		_, err := tryCommand("nsenter", append([]string{"-t", fmt.Sprint(a.State.Pid), "-n", "iptables", do}, rule...)...)
		return err
	}
	mend = func() {
		for _, rule := range rules {
			_ = change("-D", rule) // it may be gone already
		}
	}
	t.Cleanup(mend)
	for _, rule := range rules {
		if err := change("-I", rule); err != nil {
			t.Fatal(err)
		}
	}
	return mend
}

// cutAll cuts every container of the service from the other, until mended.
func (s *split) cutAll(t *testing.T, service string, from *container) (mend func()) {
	t.Helper()
	var all []func()
	for _, c := range s.containers(service) {
		all = append(all, cut(t, c, from))
	}
	return func() {
		for _, mend := range all {
			mend()
		}
	}
}

// cutOff: task does not reach one connect node. That node says that nothing comes through; others go on, and what it missed comes.
func (s *split) cutOff(t *testing.T) {
	people := s.chat(t)
	node := s.one("connect")
	mend := s.cutAll(t, "task", node)
	s.unready(node, "canary", "acknowledged (trace ")
	if other := s.containers("connect")[1]; !isReady(other) {
		t.Errorf("%s is not ready, and nobody has cut it off", other)
	}
	mend()
	s.awaitReady()
	people.flows()
	people.settle()
}

// cutDatabase: logic does not reach PostgreSQL. It says so; nobody is told that something was accepted.
func (s *split) cutDatabase(t *testing.T) {
	people := s.chat(t)
	mend := s.cutAll(t, "logic", s.one("postgres"))
	s.unready(s.one("logic"), "database", "")
	s.refuses(t)
	time.Sleep(5 * time.Second)
	mend()
	s.awaitReady()
	people.flows()
	people.settle()
}

// redisMoves: Redis comes back at another address.
func (s *split) redisMoves(t *testing.T) {
	people := s.chat(t)
	redis := s.one("redis")
	before := redis.addr("_layers", 6379)
	docker(t, "stop", "-t", "5", redis.ID)
	// Another takes its address meanwhile.
	squatter := docker(t, "run", "-d", "--label", project, "--network", project+"_layers", "--entrypoint", "/gochat", image(), "up", "--data-dir", "/tmp/data")
	defer docker(t, "rm", "-f", "-v", squatter)
	s.unready(s.one("logic"), "redis", "")
	docker(t, "start", redis.ID)
	if after := inspect(t, redis.ID)[0].addr("_layers", 6379); after == before {
		t.Fatalf("Redis is at %s as before", after)
	}
	s.awaitReady()
	people.flows()
	people.settle()
}

// diskFull: PostgreSQL cannot write. Messages are refused, the canary says so, and with room again all goes on.
func (s *split) diskFull(t *testing.T) {
	people := s.chat(t)
	fill := filepath.Join(s.dir, "disk", "fill")
	file, err := os.Create(fill)
	if err != nil {
		t.Fatal(err)
	}
	for block := make([]byte, 1<<20); err == nil; {
		_, err = file.Write(block)
	}
	_ = file.Close() // it could not be written to its end
	defer func() { _ = os.Remove(fill) }()
	s.refuses(t)
	s.unready(s.one("connect"), "canary", "could not be stored")
	eventually(t, "a logic node that says that the disk is full", func() bool {
		for _, c := range s.containers("logic") { // each knows of its own commits
			if reasons, err := readiness(c); err == nil && strings.Contains(reasons["logic: commit"], "No space left on device") {
				return true
			}
		}
		return false
	})
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	s.awaitReady()
	people.flows()
	people.settle()
}

// clockSteps: the clock of a logic node goes an hour ahead, an hour back, and right again.
func (s *split) clockSteps(t *testing.T) {
	people := s.chat(t)
	node := s.one("logic")
	clock := takeClock(t, node)
	for _, ahead := range []time.Duration{time.Hour, -time.Hour, 0} {
		clock.step(t, ahead)
		if is := timeAt(t, node); is < ahead-time.Minute || is > ahead+time.Minute {
			t.Fatalf("%s says that it is %v later, want %v", node, is, ahead)
		}
		t.Logf("the clock of %s is %v ahead", node, ahead)
		people.flows()
		time.Sleep(3 * time.Second)
	}
	s.awaitReady()
	people.flows()
	people.settle()
	if now := inspect(t, node.ID)[0]; now.RestartCount != node.RestartCount || now.State.Pid != node.State.Pid {
		t.Errorf("%s did not live through it", node)
	}
}

// timeAt is how far the container's time is ahead of this machine's, by what it answers.
func timeAt(t *testing.T, c *container) time.Duration {
	t.Helper()
	response, err := http.Get("http://" + c.addr("_layers", 9100) + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	its, err := http.ParseTime(response.Header.Get("Date"))
	if err != nil {
		t.Fatal(err)
	}
	return time.Until(its).Round(time.Second)
}

// etcdLoses: of three members one goes, and nothing is noticed; a second, and what was accepted is kept; then both are back.
func (s *split) etcdLoses(t *testing.T) {
	people := s.chat(t)
	members := s.containers("etcd1", "etcd2", "etcd3")
	defer docker(t, "start", members[0].ID, members[1].ID)
	docker(t, "stop", "-t", "5", members[0].ID)
	people.flows()
	s.awaitReady()
	docker(t, "stop", "-t", "5", members[1].ID)
	s.unready(s.one("logic"), "etcd", "")
	time.Sleep(10 * time.Second) // longer than a lease
	docker(t, "start", members[0].ID, members[1].ID)
	s.awaitReady()
	people.flows()
	people.settle()
}

// rolling: every process is replaced, one after another. Nothing is lost, and no send fails but to be tried again.
func (s *split) rolling(t *testing.T) {
	people := s.chat(t)
	for _, layer := range slices.Backward(layers()) {
		for _, c := range s.containers(layer) {
			began := time.Now()
			docker(t, "stop", "-t", "60", c.ID)
			empty := time.Since(began)
			if code := inspect(t, c.ID)[0].State.ExitCode; code != 0 {
				t.Errorf("%s ended with %d", c, code)
			}
			docker(t, "start", c.ID)
			s.awaitReady()
			t.Logf("%s: empty after %v, its successor ready after %v", c, empty.Round(10*time.Millisecond), time.Since(began).Round(10*time.Millisecond))
			people.flows()
		}
	}
	people.settle()
}

// scaled: connect grows from two nodes to four, and back.
func (s *split) scaled(t *testing.T) {
	people := s.chat(t)
	for _, n := range []int{4, 2} {
		s.scale(n)
		if got := len(s.containers("connect")); got != n {
			t.Fatalf("%d connect nodes, want %d", got, n)
		}
		s.awaitReady()
		people.flows()
	}
	people.settle()
}
