//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"testing"

	"gochat/e2e/load"
)

// image is gochat's, as docker/compose.yml names it.
func image() string {
	if name := os.Getenv("GOCHAT_IMAGE"); name != "" {
		return name
	}
	return "gochat:latest"
}

// TestImage: it is small, runs as nobody, tells whether it is well, and says what it is.
func TestImage(t *testing.T) {
	var all []struct {
		Size   int64
		Config struct {
			User        string
			Healthcheck struct{ Test []string }
			Labels      map[string]string
		}
	}
	if err := json.Unmarshal([]byte(docker(t, "image", "inspect", image())), &all); err != nil || len(all) != 1 {
		t.Fatal(err)
	}
	is := all[0]
	if t.Logf("%.1f MB", float64(is.Size)/1e6); is.Size >= 60e6 {
		t.Errorf("%d bytes, want fewer than 60 MB", is.Size)
	}
	if is.Config.User != "65532:65532" {
		t.Errorf("it runs as %q", is.Config.User)
	}
	if got := fmt.Sprint(is.Config.Healthcheck.Test); got != "[CMD /gochat health]" {
		t.Errorf("its health is asked by %s", got)
	}
	for _, label := range []string{"title", "description", "licenses", "version"} {
		if is.Config.Labels["org.opencontainers.image."+label] == "" {
			t.Errorf("has no label %s", label)
		}
	}
}

// TestUp: `gochat up` in one container does all that a system does, and keeps it over a restart and a kill.
func TestUp(t *testing.T) {
	id := docker(t, "run", "-d", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--restart", "always",
		"--health-interval", "1s", "-e", "GOCHAT_ADMIN_LISTEN=0.0.0.0:9100", image())
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(docker(t, "logs", "--tail", "100", id))
		}
		docker(t, "rm", "-f", "-v", id)
	})
	var s target
	healthy := func() {
		t.Helper()
		eventually(t, "a healthy container", func() bool {
			return docker(t, "inspect", "-f", "{{.State.Status}} {{.State.Health.Status}}", id) == "running healthy"
		})
		c := inspect(t, id)[0]
		s = target{http: http.DefaultClient, page: "http://" + c.addr("bridge", 8080) + "/", Addresses: load.Addresses{
			API: []string{c.addr("bridge", 7070)}, WebSocket: []string{c.addr("bridge", 7000)}, TCP: []string{c.addr("bridge", 7001)}}}
	}
	healthy()
	s.scenarios(t)
	for _, end := range [][]string{{"restart", "-t", "30"}, {"kill", "-s", "KILL"}} {
		t.Run("kept over "+end[0], func(t *testing.T) {
			name := unique("kept")
			u := s.register(t, name)
			text := unique("kept")
			s.must(t, u, http.MethodPost, "/v1/rooms/1/messages", object{"msg": text}, nil)
			docker(t, append(end, id)...)
			if end[0] == "kill" { // by hand, which the engine does not repair
				docker(t, "start", id)
			}
			healthy()
			again := &user{target: &s}
			s.must(t, nil, http.MethodPost, "/v1/login", object{"name": name, "password": "secret-password"}, again)
			var history struct{ Messages []struct{ Msg string } }
			s.must(t, again, http.MethodGet, "/v1/rooms/1/messages?limit=1", nil, &history)
			if len(history.Messages) != 1 || history.Messages[0].Msg != text {
				t.Errorf("the last message is %v, want %s", history.Messages, text)
			}
		})
	}
}
