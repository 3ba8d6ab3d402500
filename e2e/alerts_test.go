//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// alerts: each fault makes the alerts fire that are there for it, and the panels that show failures show them. Rules take a second
// for a minute. What one process alone can have is tested beside the dashboards.
func (s *split) alerts(t *testing.T) {
	tasksBack := s.withoutTask(t)
	// It begins while no task runs, so that it does not know who read which partition.
	hurried := filepath.Join(s.dir, "rules")
	if err := os.Mkdir(hurried, 0o755); err != nil {
		t.Fatal(err)
	}
	hurry := exec.Command("go", "run", "./hurry", hurried, "rules/recording.yml", "rules/alerts.yml")
	hurry.Dir = "../dashboards"
	if out, err := hurry.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	watched := s.prometheus(t, hurried)
	watched.fire(time.Now(), "GochatNoTask", "GochatPartitionsUnread")
	tasksBack()
	s.awaitReady()
	people := s.chat(t)
	watched.knows("gochat_queue_partition_owned")
	for _, fault := range []struct {
		name  string
		do    func(*testing.T) (mend func())
		while []string // alerts that fire then
		after []string // once it is mended
	}{
		{"no task", s.withoutTask, []string{"GochatPartitionWithoutOwner", "GochatCanaryFailing"}, []string{"GochatDeliveryLatencyBurnFast", "GochatDeliveryLatencyBurnSlow"}},
		{"no page", s.withoutSite, []string{"GochatLayerGone"}, nil},
		{"foreign item", s.foreignItem, []string{"GochatItemsSetAside"}, nil},
		{"no database", s.withoutDatabase, []string{"GochatHTTPErrors", "GochatStoreErrors", "GochatRPCErrors"}, nil},
		// Before it is unknown, within what the slow one looks back to, what waits in the queue.
		{"queue emptied", s.emptiedQueue, []string{"GochatUnconsumedBurnFast", "GochatUnconsumedBurnSlow", "GochatRepairsAbandoned", "GochatLedgerBurnFast", "GochatLedgerBurnSlow"}, nil},
		{"no Redis", s.withoutRedis, []string{"GochatSessionStoreErrors", "GochatQueueErrors", "GochatOutboxLeftovers"}, nil},
		{"spoiled route", func(t *testing.T) func() { return s.spoilRoute(t, people.room) }, []string{"GochatQueueOld", "GochatQueueBehind"}, nil},
		{"no quorum", s.withoutQuorum, []string{"GochatNodeWithoutLease", "GochatOutboxUnwatched"}, nil},
		{"paused", s.pausedLogic, []string{"GochatProcessDown"}, nil},
	} {
		t.Run(fault.name, func(t *testing.T) {
			outer := s.t
			s.t, watched.t, people.t = t, t, t
			defer func() { s.t = outer }()
			watched.quiet(slices.Concat(fault.while, fault.after)...)
			began := time.Now()
			mend := fault.do(t)
			watched.fire(began, fault.while...)
			mend()
			s.awaitReady()
			people.flows()
			watched.fire(began, fault.after...)
		})
	}
	people.t = t
	people.settle()
	watched.check(t, "TestSystemThatWasIll")
}

// prometheus is one that watches the system, as often as every second.
type prometheus struct {
	t   *testing.T
	url string
}

// prometheus starts it with the rules of the directory; it stops with the test.
func (s *split) prometheus(t *testing.T, rules string) *prometheus {
	t.Helper()
	config, err := os.ReadFile("../docker/observability/prometheus.yml")
	if err != nil {
		t.Fatal(err)
	}
	often := filepath.Join(s.dir, "prometheus.yml")
	if err := os.WriteFile(often, []byte(strings.ReplaceAll(string(config), "interval: 15s", "interval: 1s")), 0o644); err != nil {
		t.Fatal(err)
	}
	environ := s.environ
	s.environ = append(slices.Clip(environ), "E2E_PROMETHEUS="+often, "E2E_RULES="+rules)
	s.compose("--profile", "observability", "up", "-d", "--no-deps", "prometheus")
	s.environ = environ
	c := s.one("prometheus")
	t.Cleanup(func() { docker(t, "stop", "-t", "5", c.ID) })
	return &prometheus{t, "http://" + c.addr("_layers", 9090)}
}

// check runs a test of the dashboards against it.
func (p *prometheus) check(t *testing.T, name string) {
	t.Helper()
	check := exec.Command("go", "test", "-tags", "e2e", "-count=1", "-v", "-run", "^"+name+"$", "./live")
	check.Dir = "../dashboards"
	check.Env = append(os.Environ(), "DASHBOARDS_PROMETHEUS="+p.url)
	if out, err := check.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: "+name) {
		t.Errorf("%v\n%s", err, out)
	}
}

// labels are those of each sample that the query answers.
func (p *prometheus) labels(query string) (all []map[string]string) {
	response, err := http.Get(p.url + "/api/v1/query?query=" + url.QueryEscape(query))
	if err != nil {
		return nil // it may still start
	}
	defer func() { _ = response.Body.Close() }()
	var answer struct {
		Data struct {
			Result []struct{ Metric map[string]string }
		}
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return nil
	}
	for _, r := range answer.Data.Result {
		all = append(all, r.Metric)
	}
	return all
}

// knows waits until there is an answer.
func (p *prometheus) knows(query string) {
	p.t.Helper()
	eventually(p.t, query, func() bool { return len(p.labels(query)) > 0 })
}

// fire waits until each of the alerts has fired since then.
func (p *prometheus) fire(since time.Time, alerts ...string) {
	p.t.Helper()
	for _, alert := range alerts {
		var fired []map[string]string
		await(p.t, 3*within, alert, func() bool { // some look back for a minute, and to before it
			fired = p.labels(fmt.Sprintf(`count_over_time(ALERTS{alertname=%q, alertstate="firing", job="gochat"}[%ds])`, alert, 1+int(time.Since(since).Seconds())))
			return len(fired) > 0
		})
		p.t.Logf("fires: %v", fired)
	}
}

// quiet waits until none of the alerts fires any more.
func (p *prometheus) quiet(alerts ...string) {
	p.t.Helper()
	query := fmt.Sprintf(`ALERTS{alertname=~%q, alertstate="firing", job="gochat"}`, strings.Join(alerts, "|"))
	await(p.t, 3*within, "none is firing: "+query, func() bool { return len(p.labels("vector(1)")) > 0 && len(p.labels(query)) == 0 })
}

// once is done once, with the test's end at the latest.
func once(t *testing.T, mend func()) func() {
	mend = sync.OnceFunc(mend)
	t.Cleanup(mend)
	return mend
}

// away stops the containers, until mended.
func away(t *testing.T, all ...*container) (mend func()) {
	t.Helper()
	ids := make([]string, len(all))
	for i, c := range all {
		ids[i] = c.ID
	}
	mend = once(t, func() { docker(t, append([]string{"start"}, ids...)...) })
	docker(t, append([]string{"stop", "-t", "10"}, ids...)...)
	return mend
}

// withoutTask ends the task layer.
func (s *split) withoutTask(t *testing.T) (mend func()) { return away(t, s.containers("task")...) }

// withoutSite ends the page.
func (s *split) withoutSite(t *testing.T) (mend func()) { return away(t, s.containers("site")...) }

// withoutDatabase ends PostgreSQL, while people go on by REST.
func (s *split) withoutDatabase(t *testing.T) (mend func()) {
	back := away(t, s.one("postgres"))
	for began := time.Now(); time.Since(began) < 10*time.Second; time.Sleep(100 * time.Millisecond) {
		s.do(t, s.somebody, http.MethodPost, "/v1/rooms/1/messages", object{"msg": "into the void"})
	}
	return back
}

// withoutRedis ends Redis: what is accepted waits in the outbox.
func (s *split) withoutRedis(t *testing.T) (mend func()) { return away(t, s.one("redis")) }

// redis runs a command there.
func (s *split) redis(t *testing.T, args ...string) string {
	t.Helper()
	return docker(t, append([]string{"exec", s.one("redis").ID, "redis-cli"}, args...)...)
}

// sql runs a statement in PostgreSQL.
func (s *split) sql(t *testing.T, statement string) {
	t.Helper()
	docker(t, "exec", s.one("postgres").ID, "sh", "-c",
		`PGPASSWORD=$(cat /run/secrets/postgres_password) psql -h 127.0.0.1 -U gochat -d gochat -v ON_ERROR_STOP=1 -c "$0"`, statement)
}

// spoilRoute has something in Redis, where the routes of the room are, that are none.
func (s *split) spoilRoute(t *testing.T, room int64) (mend func()) {
	key := fmt.Sprint("gochat:route:room:", room)
	s.redis(t, "SET", key, "spoiled")
	return once(t, func() { s.redis(t, "DEL", key) })
}

// withoutQuorum ends two of the three members of etcd.
func (s *split) withoutQuorum(t *testing.T) (mend func()) {
	return away(t, s.containers("etcd1", "etcd2")...)
}

// pausedLogic has no logic answer.
func (s *split) pausedLogic(t *testing.T) (mend func()) { return pause(t, s.containers("logic")) }

// pause has the containers stand still, until mended.
func pause(t *testing.T, all []*container) (mend func()) {
	t.Helper()
	var ids []string
	for _, c := range all {
		ids = append(ids, c.ID)
	}
	docker(t, append([]string{"pause"}, ids...)...)
	return once(t, func() { docker(t, append([]string{"unpause"}, ids...)...) })
}

// foreignItem puts something into the queue that is no delivery.
func (s *split) foreignItem(t *testing.T) (mend func()) {
	s.redis(t, "XADD", "gochat:deliveries:{0}", "*", "key", "k", "headers", "", "body", "of somebody else")
	return func() {}
}

// emptiedQueue has Redis lose what waits in the queue, again and again, and PostgreSQL the messages of one room of it.
func (s *split) emptiedQueue(t *testing.T) (mend func()) {
	u := s.register(t, unique("lost"))
	var room struct{ ID int }
	s.must(t, u, http.MethodPost, "/v1/rooms", object{"name": unique("lost")}, &room)
	var conns []*conn
	for range 4 {
		c := s.transports()["websocket"](t)
		c.enter(t, u, room.ID)
		conns = append(conns, c)
	}
	tasks := s.containers("task")
	say := func(text string) {
		s.must(t, u, http.MethodPost, fmt.Sprintf("/v1/rooms/%d/messages", room.ID), object{"msg": text}, nil)
	}
	say("first")
	conns[0].text(t, "first")
	for range 4 {
		goOn := pause(t, tasks)
		for range 20 {
			say("lost")
		}
		time.Sleep(2 * time.Second)
		s.redis(t, "EVAL", "for _, stream in ipairs(redis.call('KEYS', 'gochat:deliveries:{*}')) do redis.call('XTRIM', stream, 'MAXLEN', 0) end", "0")
		s.sql(t, fmt.Sprintf("DELETE FROM messages WHERE conversation_id = 'room:%d' AND text = 'lost'", room.ID))
		goOn()
		after := unique("after")
		say(after)
		for _, c := range conns {
			c.text(t, after)
		}
	}
	return func() {}
}
