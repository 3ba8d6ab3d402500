package layers

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/testclient"
	"gochat/layers/internal/testdeps"
	"gochat/layers/internal/testwait"
)

// stormy is one of very many connections: it reads what it is sent without looking at more than it must.
type stormy struct {
	inRoom, told chan struct{}
	again        int
}

const stormText = "after the storm"

// come connects to the address until it is in the lobby, as one who is told to come back later does.
func (s *stormy) come(addr string, u *testclient.User) {
	for ; !s.hold(addr, u); s.again++ {
		time.Sleep(200 * time.Millisecond)
	}
}

// hold is one connection. It is false if it ended before it was in the room.
func (s *stormy) hold(addr string, u *testclient.User) (entered bool) {
	conn, err := net.DialTimeout("tcp", addr, testclient.Patience)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	enter := fmt.Appendf(nil, `{"op":6,"authToken":%q,"roomId":1}`, u.Token)
	_, _ = conn.Write(append(testclient.Packet(enter), testclient.Packet([]byte(`{"op":10}`))...)) // answered when it is in
	for {
		packet, err := testclient.ReadPacket(conn)
		switch {
		case err != nil:
			return entered
		case bytes.Contains(packet, []byte(`"op":11`)) && !entered:
			entered = true
			close(s.inRoom)
		case bytes.Contains(packet, []byte(stormText)):
			close(s.told)
		case bytes.Contains(packet, []byte(`"op":21`)) && !entered:
			return false
		}
	}
}

// strain is what a storm can make grow in a system, and how far it may.
type strain struct{ logic, connect, connections, redis, database, queueBytes float64 }

// over names what is above its bound.
func (l strain) over(bound strain) (names []string) {
	for name, pair := range map[string][2]float64{
		"goroutines of logic, task and api": {l.logic, bound.logic}, "goroutines of connect": {l.connect, bound.connect},
		"connections":          {l.connections, bound.connections},
		"connections to Redis": {l.redis, bound.redis}, "connections to the database": {l.database, bound.database},
		"bytes that wait for sockets": {l.queueBytes, bound.queueBytes},
	} {
		if pair[0] > pair[1] {
			names = append(names, fmt.Sprintf("%s: %v, at most %v", name, pair[0], pair[1]))
		}
	}
	return names
}

func (l strain) max(o strain) strain {
	return strain{
		max(l.logic, o.logic), max(l.connect, o.connect), max(l.connections, o.connections),
		max(l.redis, o.redis), max(l.database, o.database), max(l.queueBytes, o.queueBytes),
	}
}

// strainOn looks at a system while it works.
func strainOn(t *testing.T, rest, connect *running, redis string) strain {
	return strain{
		logic: metric(t, rest, "go_goroutines", ""), connect: metric(t, connect, "go_goroutines", ""),
		connections: metric(t, connect, "gochat_connections", ""),
		redis:       redisConnections(t, redis),
		database:    metric(t, rest, "go_sql_open_connections", ""),
		queueBytes:  metric(t, connect, "gochat_channel_queue_bytes", ""),
	}
}

// redisConnections is how many the server has, but for the one that asks.
func redisConnections(t *testing.T, addr string) float64 {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, testclient.Patience)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(testclient.Patience))
	_, _ = conn.Write([]byte("INFO clients\r\n"))
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		if n, found := strings.CutPrefix(lines.Text(), "connected_clients:"); found {
			count, err := strconv.ParseFloat(n, 64)
			if err != nil {
				t.Fatal(err)
			}
			return count - 1
		}
	}
	t.Fatal("Redis does not say how many connections it has")
	return 0
}

// stay is one who connects and never says who it is, until it is shown out.
func stay(t *testing.T, addr string) {
	conn, err := net.DialTimeout("tcp", addr, testclient.Patience)
	if err != nil {
		t.Errorf("a stranger: %v", err)
		return
	}
	_, _ = io.Copy(io.Discard, conn)
	_ = conn.Close()
}

// TestReconnectStorm has 5,000 connections come back at the same moment, since their node was killed, to one that takes
// no more, and strangers take places there. All are let in again and get what is said then, and who is online is right.
// All the while each layer keeps its bounds.
func TestReconnectStorm(t *testing.T) {
	const users, each = 250, 20
	const conns, strangers = users * each, 300
	b := realBackend(t)
	cfg := b.config()
	cfg.Queue.URL = "redis://" + testdeps.Redis(t).Addr() + "/0" // so that the other one has the sessions and routes alone
	cfg.Redis.PoolSize, cfg.Database.MaxConns, cfg.Connect.MaxConns = 2, 1, conns
	const stores = 3 // that hold sessions or routes: of logic, task and the connect node that lives
	bound := strain{
		// A connection asks one thing at a time, and has at most one goroutine to read and one to write what waits.
		logic: conns + 500, connect: 2*conns + 500, connections: conns,
		redis: float64(stores * cfg.Redis.PoolSize), database: float64(cfg.Database.MaxConns),
		queueBytes: float64(conns * cfg.Connect.QueueBytes / 100), // nobody is slow
	}

	rest := spawn(t, cfg, contract.LayerLogic, contract.LayerTask, contract.LayerAPI)
	nodes := []*running{spawn(t, cfg, contract.LayerConnect), spawn(t, cfg, contract.LayerConnect)}
	people := make([]*testclient.User, users)
	for i := range people {
		people[i] = testclient.Register(t, rest.api(), fmt.Sprint("storm-", i))
	}
	var leaving sync.WaitGroup
	defer leaving.Wait()
	defer func() { nodes[0].kill(); nodes[1].kill() }()
	enter := func(r *running) ([]stormy, strain) {
		began := time.Now()
		all := make([]stormy, conns)
		for i := range all {
			all[i].inRoom, all[i].told = make(chan struct{}), make(chan struct{})
			leaving.Go(func() { all[i].come(r.TCP[0], people[i%users]) })
		}
		most, in := strain{}, 0
		testwait.Within(t, 2*testclient.Patience, "everybody is let in", func() bool {
			most = most.max(strainOn(t, rest, r, b.redis))
			for in < conns && isClosed(all[in].inRoom) {
				in++
			}
			return in == conns
		})
		again := 0
		for i := range all {
			again += all[i].again
		}
		t.Logf("%d connections let in after %v, with %d further tries; at most %+v", conns, time.Since(began).Round(time.Millisecond), again, most)
		return all, most
	}
	online := func() int {
		var out struct{ Count int }
		people[0].Must(t, "GET", "/v1/rooms/1/online", nil, &out)
		return out.Count
	}
	_, first := enter(nodes[0])
	eventually(t, "all are online", func() bool { return online() == users })

	nodes[0].kill()
	for range strangers {
		leaving.Go(func() { stay(t, nodes[1].TCP[0]) })
	}
	eventually(t, "the strangers have come", func() bool {
		shownOut := metric(t, nodes[1], "gochat_connection_closes_total", `code="unauthenticated"`)
		return metric(t, nodes[1], "gochat_connections", "")+shownOut >= strangers
	})
	all, most := enter(nodes[1])
	most = most.max(first) // one storm comes at once, the other as the machine lets it
	people[0].Must(t, "POST", "/v1/rooms/1/messages", map[string]any{"msg": stormText}, nil)
	told := 0
	testwait.Within(t, 2*testclient.Patience, "everybody is told", func() bool {
		most = most.max(strainOn(t, rest, nodes[1], b.redis))
		for told < conns && isClosed(all[told].told) {
			told++
		}
		return told == conns
	})
	eventually(t, "the count is right", func() bool { return online() == users })
	for _, over := range most.over(bound) {
		t.Errorf("over its bound: %s", over)
	}
	// The look at the strain sees what there is: each part of it is over a bound that is below what a storm must make.
	// How many connections are at work at once is the machine's; a node at rest has a tenth of these goroutines.
	seen := strain{logic: 10, connect: conns / 10, connections: conns / 2, redis: float64(cfg.Redis.PoolSize) / 2, database: 0.5, queueBytes: -1}
	if over := most.over(seen); len(over) != 6 {
		t.Errorf("not seen at work, at most %+v: only %q", most, over)
	}
	if n := metric(t, nodes[1], "gochat_connections_turned_away_total", ""); n == 0 {
		t.Error("nobody was turned away, though more came than the node takes")
	}
	if n := metric(t, nodes[1], "gochat_connection_closes_total", `code="unauthenticated"`); n < strangers {
		t.Errorf("%v of %d strangers were shown out", n, strangers)
	}
	if n := metric(t, nodes[1], "gochat_connection_closes_total", `code="slow_consumer"`); n > 0 {
		t.Errorf("%v were closed as slow", n)
	}
	if log := nodes[1].log.String(); strings.Contains(log, `"level":"ERROR"`) {
		t.Errorf("errors while they came:\n%.2000s", log)
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
