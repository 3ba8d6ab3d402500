package main

import (
	"errors"
	"os"
	"strings"
	"testing"

	"gochat/layers"
)

// TestBenchUsage: a wrong flag of bench ends with 2 and says what is allowed; what it finds ends with 1.
func TestBenchUsage(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		want string
		code int
	}{
		{"no such scenario", []string{"bench", "storm"}, `scenario "storm": want one of fanout, rooms, private, idle, churn, slow, or compare`, 2},
		{"no such flag", []string{"bench", "fanout", "--storm"}, "unknown flag: --storm", 2},
		{"flag of another scenario", []string{"bench", "idle", "--rate", "1"}, "unknown flag: --rate", 2},
		{"not a number", []string{"bench", "fanout", "--members", "many"}, `invalid argument "many" for "--members"`, 2},
		{"out of bounds", []string{"bench", "fanout", "--password", "password", "--members", "0"}, "--members: 0: want 1 to 1000000", 2},
		{"no password", []string{"bench", "idle"}, "--password: too short: want 6 characters or more", 2},
		{"not loopback", []string{"bench", "idle", "--password", "password", "--websocket", "192.0.2.1:7000"}, "want loopback, or --allow-remote", 2},
		{"no process", []string{"bench", "idle", "--pid", "api"}, `--pid: "api": want NAME=PID`, 2},
		{"a process twice", []string{"bench", "idle", "--pid", "a=1", "--pid", "a=2"}, `--pid: "a=2": want each name once`, 2},
		{"an argument", []string{"bench", "idle", "now"}, `"now": want flags alone`, 2},
		{"one report", []string{"bench", "compare", "a.json"}, "want two files", 2},
		{"no such report", []string{"bench", "compare", "/nowhere/a.json", "/nowhere/b.json"}, "read report: open /nowhere/a.json", 1},
		{"nobody there", []string{"bench", "idle", "--password", "password", "--api", "http://127.0.0.1:1"}, "reach http://127.0.0.1:1", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, err := invoke(t, c.args...)
			if err == nil || !strings.Contains(err.Error(), c.want) || exitCode(err) != c.code {
				t.Errorf("got %v, exit code %d, want %q and %d\n%s", err, exitCode(err), c.want, c.code, out)
			}
		})
	}
	if exitCode(errors.New("any")) != 1 || exitCode(&layers.BenchUsageError{Err: os.ErrInvalid}) != 2 {
		t.Error("exit codes are mixed up")
	}
}

// TestBenchHelp: each scenario is listed, the process that serves as reference is not.
func TestBenchHelp(t *testing.T) {
	out, err := invoke(t, "bench")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(layers.BenchScenarios(), "compare") {
		if !strings.Contains(out, "\n  "+name+" ") {
			t.Errorf("%s is not listed in\n%s", name, out)
		}
	}
	if strings.Contains(out, referenceCommand) {
		t.Error("the reference is listed")
	}
}
