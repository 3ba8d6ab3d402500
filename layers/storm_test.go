package layers

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/testclient"
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

// TestReconnectStorm has 5,000 connections come back at the same moment, since their node was killed. All are let in
// again and get what is said then, and who is online is right.
func TestReconnectStorm(t *testing.T) {
	const users, each = 250, 20
	b := realBackend(t)
	rest := start(t, b.config(), contract.LayerLogic, contract.LayerTask, contract.LayerAPI)
	nodes := []*running{spawn(t, b.config(), contract.LayerConnect), spawn(t, b.config(), contract.LayerConnect)}
	people := make([]*testclient.User, users)
	for i := range people {
		people[i] = testclient.Register(t, rest.api(), fmt.Sprint("storm-", i))
	}
	var leaving sync.WaitGroup
	defer leaving.Wait()
	defer func() { nodes[0].kill(); nodes[1].kill() }()
	await := func(what string, c <-chan struct{}) {
		select {
		case <-c:
		case <-time.After(2 * testclient.Patience):
			t.Fatalf("not within %v: %s", 2*testclient.Patience, what)
		}
	}
	enter := func(r *running) []stormy {
		began := time.Now()
		conns := make([]stormy, users*each)
		for i := range conns {
			conns[i].inRoom, conns[i].told = make(chan struct{}), make(chan struct{})
			leaving.Go(func() { conns[i].come(r.TCP[0], people[i%users]) })
		}
		again := 0
		for i := range conns {
			await("everybody is let in", conns[i].inRoom)
			again += conns[i].again
		}
		t.Logf("%d connections let in after %v, with %d further tries", len(conns), time.Since(began).Round(time.Millisecond), again)
		return conns
	}
	online := func() int {
		var out struct{ Count int }
		people[0].Must(t, "GET", "/v1/rooms/1/online", nil, &out)
		return out.Count
	}
	enter(nodes[0])
	eventually(t, "all are online", func() bool { return online() == users })

	nodes[0].kill()
	conns := enter(nodes[1])
	people[0].Must(t, "POST", "/v1/rooms/1/messages", map[string]any{"msg": stormText}, nil)
	for i := range conns {
		await("everybody is told", conns[i].told)
	}
	eventually(t, "the count is right", func() bool { return online() == users })
	if log := nodes[1].log.String(); strings.Contains(log, `"level":"ERROR"`) {
		t.Errorf("errors while they came:\n%.2000s", log)
	}
}
