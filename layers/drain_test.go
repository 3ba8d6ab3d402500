package layers

import (
	"testing"
	"time"

	"gochat/layers/internal/testclient"
)

// TestPushesGoOnWhileConnectDrains: in a process of all layers, who has not yet been told to go still gets what is
// said. So task, which brings it there, must outlive connect.
func TestPushesGoOnWhileConnectDrains(t *testing.T) {
	t.Parallel()
	const drain = 10 * time.Second // the second of two is told to go at half of it
	r := system(t, func(cfg *Config) { cfg.Connect.Drain = drain })
	conns := []*testclient.Conn{testclient.WebSocket(t, r.WebSocket), testclient.TCP(t, r.TCP[0])}
	for i, name := range []string{"ann", "bob"} {
		conns[i].Enter(t, testclient.Register(t, r.api(), name), 1)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- r.stop() }()

	var stays *testclient.Conn
	eventually(t, "one of two is told to go", func() bool {
		for i, c := range conns {
			for _, f := range c.Frames() {
				if f.Op() == 23 {
					stays = conns[1-i]
					return true
				}
			}
		}
		return false
	})
	stays.Send(t, map[string]any{"op": 3, "roomId": 1, "msg": "is anybody left?", "clientId": "late"})
	stays.AwaitOp(t, 20)
	stays.AwaitText(t, "is anybody left?")
	stays.AwaitError(t, "unavailable") // it was sent away by the drain, after that
	if err := <-stopped; err != nil {
		t.Errorf("drain: %v", err)
	}
}
