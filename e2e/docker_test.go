//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// within bounds a single thing that is waited for.
const within = time.Minute

// command runs a program to its end and answers what it printed on standard output.
func command(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := tryCommand(name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func tryCommand(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(errs.Bytes()))
	}
	return strings.TrimSpace(out.String()), nil
}

func docker(t testing.TB, args ...string) string {
	t.Helper()
	return command(t, "docker", args...)
}

// container is one as the engine describes it.
type container struct {
	ID    string
	Name  string
	State struct {
		Pid      int
		Running  bool
		ExitCode int
	}
	Config          struct{ Labels map[string]string }
	NetworkSettings struct {
		Networks map[string]struct{ IPAddress string }
	}
	RestartCount int
}

func (c *container) service() string { return c.Config.Labels["com.docker.compose.service"] }

// String is its name as people know it.
func (c *container) String() string { return strings.TrimPrefix(c.Name, "/") }

// addr is host:port of the container in the network whose name ends so.
func (c *container) addr(network string, port int) string {
	for name, n := range c.NetworkSettings.Networks {
		if strings.HasSuffix(name, network) {
			return n.IPAddress + ":" + strconv.Itoa(port)
		}
	}
	return ""
}

// inspect answers what the containers are like now.
func inspect(t testing.TB, ids ...string) []*container {
	t.Helper()
	if len(ids) == 0 {
		return nil
	}
	var all []*container
	if err := json.Unmarshal([]byte(docker(t, append([]string{"inspect"}, ids...)...)), &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// eventually waits until it is so.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	await(t, within, what, is)
}

// await waits for so long until it is so.
func await(t testing.TB, long time.Duration, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(long); !is(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", long, what)
		}
	}
}
