//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
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
	packed, err := strconv.Atoi(command(t, "sh", "-c", "docker save "+image()+" | gzip | wc -c"))
	if t.Logf("%.1f MB", float64(packed)/1e6); err != nil || packed >= 60e6 {
		t.Errorf("%d bytes as a registry keeps it, %v; want fewer than 60 MB", packed, err)
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

// TestReproducible: what is built of the same files elsewhere, by the same compiler, is the binary of the image.
func TestReproducible(t *testing.T) {
	if os.Getenv("E2E_IMAGES") == "" {
		t.Run("not run, since the image's compiler is another's", func(t *testing.T) { t.SkipNow() })
		return
	}
	version := docker(t, "image", "inspect", "-f", `{{index .Config.Labels "org.opencontainers.image.version"}}`, image())
	id := docker(t, "create", image())
	defer docker(t, "rm", id)
	dir := t.TempDir()
	docker(t, "cp", id+":/gochat", dir+"/image")
	command(t, "sh", "-c", "git -C .. ls-files -z | tar -C .. --null -T - -c | tar -x -C "+dir+" && cp -r ../layers/site/dist "+dir+"/layers/site/")
	command(t, "env", "VERSION="+version, dir+"/docker/rootfs.sh", dir+"/again")
	command(t, "cmp", dir+"/image", dir+"/again/root/gochat")
}

// TestUp: `gochat up` in one container does all that a system does, and keeps it over a restart and a kill.
func TestUp(t *testing.T) {
	id := docker(t, "run", "-d", "--label", project, "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--restart", "always",
		"--health-interval", "1s", "-e", "GOCHAT_ADMIN_LISTEN=0.0.0.0:9100", image())
	t.Cleanup(func() {
		if t.Failed() {
			keepLogs(t, id, "up")
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
		// The page's host has the websocket too, so that it is of the same origin.
		s = target{http: http.DefaultClient, page: "http://" + c.addr("bridge", 8080) + "/", origin: "http://" + c.addr("bridge", 8080),
			// Published, as README says, it is on this machine.
			opened: "http://localhost:8080/", resolved: "MAP localhost " + strings.TrimSuffix(c.addr("bridge", 0), ":0"),
			Addresses: load.Addresses{
				API: []string{c.addr("bridge", 7070)}, WebSocket: []string{c.addr("bridge", 7000)}, TCP: []string{c.addr("bridge", 7001)}}}
	}
	healthy()
	s.scenarios(t)
	for _, end := range [][]string{{"restart", "-t", "30"}, {"kill", "-s", "KILL"}} {
		t.Run("kept over "+end[0], func(t *testing.T) {
			name := unique("kept")
			u := s.register(t, name)
			text := unique("kept")
			var room struct{ ID int }
			s.must(t, u, http.MethodPost, "/v1/rooms", object{"name": name}, &room)
			path := fmt.Sprintf("/v1/rooms/%d/messages", room.ID)
			s.must(t, u, http.MethodPost, path, object{"msg": text}, nil)
			docker(t, append(end, id)...)
			if end[0] == "kill" { // by hand, which the engine does not repair
				docker(t, "start", id)
			}
			healthy()
			again := &user{target: &s}
			s.must(t, nil, http.MethodPost, "/v1/login", object{"name": name, "password": "secret-password"}, again)
			var history struct{ Messages []struct{ Msg string } }
			s.must(t, again, http.MethodGet, path, nil, &history)
			if len(history.Messages) != 1 || history.Messages[0].Msg != text {
				t.Errorf("the room has %v, want %s", history.Messages, text)
			}
		})
	}
}
