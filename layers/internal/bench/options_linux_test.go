package bench

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

// TestFit: who wants more connections than a process may have is told how to make them with several.
func TestFit(t *testing.T) {
	if err := fit(936, 1000); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		connections, files int
		want               string
	}{
		{937, 1000, "937 connections: this process may have 936 at most, since ulimit -n is 1000: raise it, or run 2 processes at once, each with its part of the connections, another --user-prefix, and --sources 2 or more"},
		{2809, 1000, "run 4 processes at once"},
		{1, 64, "raise ulimit -n, which is 64"},
	} {
		var usage *UsageError
		if err := fit(c.connections, c.files); !errors.As(err, &usage) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%d connections, %d files: got %v, want %q", c.connections, c.files, err, c.want)
		}
	}
}

func TestOptions(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Options)
		want   string // in the error; "" if there is none
	}{
		{"fine", func(*Options) {}, ""},
		{"scenario", func(o *Options) { o.Scenario = "storm" }, `scenario "storm": want one of fanout, rooms, private, idle, churn, slow`},
		{"transport", func(o *Options) { o.Transport = "udp" }, `--transport: "udp": want websocket or tcp`},
		{"no password", func(o *Options) { o.Password = "" }, "--password: too short: want 6 characters or more"},
		{"rate", func(o *Options) { o.Rate = -1 }, "--rate: -1: want more than 0"},
		{"rate and time", func(o *Options) { o.Rate, o.For = 1e6, time.Hour }, "--rate"},
		{"more than can be kept", func(o *Options) { o.Members, o.Rate, o.For = 10_000, 1000, time.Hour }, "--rate: 1000: want less, or a shorter --for"},
		{"much in many rooms", func(o *Options) {
			o.Scenario, o.Rooms, o.Members, o.Rate, o.For = Rooms, 1000, 10, 1000, time.Hour
		}, ""},
		{"size", func(o *Options) { o.Size = 10 }, "--size: 10: want 44 to 16384"},
		{"members", func(o *Options) { o.Members = 0 }, "--members: 0: want 1 to 1000000"},
		{"senders", func(o *Options) { o.Senders = 200 }, "--senders: 200: want 1 to 100"},
		{"for", func(o *Options) { o.For = 0 }, "--for: 0s: want 100ms to 24h0m0s"},
		{"ports", func(o *Options) { o.Scenario, o.Connections = Idle, 45_000 }, "--sources: 0: want 3 or more for 45000 connections"},
		{"reference without messages", func(o *Options) { o.Scenario, o.Reference = Idle, true }, "--reference: true: want a scenario that sends"},
		{"users in pairs", func(o *Options) { o.Scenario, o.Users = Private, 3 }, "--users: 3: want 0"},
		{"two at once", func(o *Options) { o.Rate, o.Size = 0, 0 }, "--size"},
		{"remote", func(o *Options) { o.WebSocket = []string{"192.0.2.1:7000"} }, "--websocket: 192.0.2.1 is 192.0.2.1: want loopback, or --allow-remote"},
		{"one of several remote", func(o *Options) { o.WebSocket = []string{"127.0.0.1:7000", "192.0.2.1:7000"} }, "want loopback"},
		{"api remote", func(o *Options) { o.API = "http://192.0.2.1:7070" }, "--api: 192.0.2.1 is 192.0.2.1: want loopback"},
		{"api no URL", func(o *Options) { o.API = "127.0.0.1" }, "--api"},
		{"target", func(o *Options) { o.WebSocket = []string{"7000"} }, "want host:port"},
		{"no such process", func(o *Options) { o.Processes = []Process{{"a", 1 << 30}} }, "--pid: a=1073741824: no such process"},
		{"name twice", func(o *Options) { o.Processes = []Process{{"a", 1}, {"a", 2}} }, "--pid: a=2: want NAME=PID"},
		{"sources elsewhere", func(o *Options) { o.Sources, o.WebSocket = 2, []string{"[::1]:7000"} }, "--sources: 2: want 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := Defaults()
			o.Scenario, o.Password, o.API = Fanout, "password", "http://127.0.0.1:1" // where nobody listens
			c.change(&o)
			err := Run(t.Context(), o, io.Discard, io.Discard)
			var usage *UsageError
			if is := errors.As(err, &usage); is != (c.want != "") {
				t.Fatalf("got %v", err)
			}
			if c.want != "" && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %q, want %q", err, c.want)
			}
		})
	}
}
