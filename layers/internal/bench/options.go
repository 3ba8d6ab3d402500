package bench

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Scenarios.
const (
	Fanout  = "fanout"  // a few senders in one room of many
	Rooms   = "rooms"   // many rooms
	Private = "private" // pairs that write to each other
	Idle    = "idle"    // connections that stay
	Churn   = "churn"   // connections that come and go
	Slow    = "slow"    // a room in which some never read
)

// Scenarios lists all.
func Scenarios() []string { return []string{Fanout, Rooms, Private, Idle, Churn, Slow} }

// Transports.
const (
	WebSocket = "websocket"
	TCP       = "tcp"
)

// Process is a process whose CPU and memory are reported, with its descendants.
type Process struct {
	Name string
	PID  int
}

// Options say what load to make, and where.
type Options struct {
	Scenario    string
	Transport   string
	API         string   // base URL of the REST API
	WebSocket   []string // host:port, connections take turns
	TCP         []string
	AllowRemote bool // targets that are not loopback

	Members     int     // Fanout, Rooms, Slow: connections in a room
	Rooms       int     // Rooms
	Pairs       int     // Private
	Connections int     // Idle, Churn
	Silent      int     // Slow: further members who never read
	Senders     int     // Fanout, Rooms, Slow: members of a room who take turns to send
	Rate        float64 // messages a second, all groups together
	Size        int     // bytes of a message's text

	For   time.Duration // how long to send, hold, or come and go
	Drain time.Duration // how long to wait for what is on its way

	Users      int    // 0: one for each connection, 1000 at most
	UserPrefix string // followed by four digits or more
	Password   string // of all of them
	Logins     int    // at once
	Connecting int    // handshakes at once
	Sources    int    // addresses 127.0.0.2 and up to connect from; 0 leaves the choice to the kernel

	Processes []Process
	JSON      string // file for the report; "" for none

	// Reference runs the same work against a bare write loop in a child, which ReferenceCommand starts.
	Reference        bool
	ReferenceCommand []string
}

// Defaults are those of the command line.
func Defaults() Options {
	return Options{
		Transport: WebSocket, API: "http://127.0.0.1:7070", WebSocket: []string{"127.0.0.1:7000"}, TCP: []string{"127.0.0.1:7001"},
		Members: 100, Rooms: 10, Pairs: 50, Connections: 1000, Silent: 5, Senders: 4, Rate: 20, Size: 120,
		For: 10 * time.Second, Drain: 10 * time.Second,
		UserPrefix: "bench-", Logins: 4, Connecting: 200,
	}
}

// UsageError is a mistake in the options, found before any load is made.
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() }
func (e *UsageError) Unwrap() error { return e.Err }

// Bounds on what one run may hold.
const (
	maxBits        = 8 << 30 // one for each message and receiver: a GiB
	maxMessages    = 10_000_000
	maxConnections = 1_000_000
	maxText        = 16 << 10
	minPassword    = 6
	maxGroups      = 1 << 24
	portsPerSource = 20_000
	maxSources     = 250
	maxLogins      = 64
	defaultUsers   = 1000
	maxTargets     = 64
	maxDuration    = 24 * time.Hour
	minDuration    = 100 * time.Millisecond
)

// validate answers a UsageError that names every wrong flag and what is allowed.
func (o *Options) validate() error {
	var errs []error
	want := func(ok bool, flag string, value any, allowed string) {
		if !ok {
			errs = append(errs, fmt.Errorf("--%s: %v: want %s", flag, value, allowed))
		}
	}
	within := func(flag string, value, least, most int) {
		want(value >= least && value <= most, flag, value, fmt.Sprintf("%d to %d", least, most))
	}
	want(o.Transport == WebSocket || o.Transport == TCP, "transport", fmt.Sprintf("%q", o.Transport), "websocket or tcp")
	if o.Transport == TCP {
		within("tcp", len(o.TCP), 1, maxTargets)
	} else {
		within("websocket", len(o.WebSocket), 1, maxTargets)
	}
	want(o.For >= minDuration && o.For <= maxDuration, "for", o.For, fmt.Sprintf("%v to %v", minDuration, maxDuration))
	want(o.Drain >= 0 && o.Drain <= maxDuration, "drain", o.Drain, fmt.Sprintf("0s to %v", maxDuration))
	want(len(o.Password) >= minPassword, "password", "too short", fmt.Sprintf("%d characters or more, the same in every run", minPassword))
	want(o.UserPrefix != "" && len(o.UserPrefix) <= 40, "user-prefix", fmt.Sprintf("%q", o.UserPrefix), "1 to 40 characters")
	within("users", o.Users, 0, maxConnections)
	within("logins", o.Logins, 1, maxLogins)
	within("connecting", o.Connecting, 1, maxConnections)
	within("sources", o.Sources, 0, maxSources)
	switch o.Scenario {
	case Fanout, Slow:
		within("members", o.Members, 1, maxConnections)
	case Rooms:
		within("members", o.Members, 1, maxConnections)
		within("rooms", o.Rooms, 1, maxGroups)
	case Private:
		within("pairs", o.Pairs, 1, maxConnections/2)
		want(o.Users == 0, "users", o.Users, "0: in this scenario each connection is its own user")
	case Idle, Churn:
		within("connections", o.Connections, 1, maxConnections)
	default:
		errs = append(errs, fmt.Errorf("scenario %q: want one of %s", o.Scenario, strings.Join(Scenarios(), ", ")))
	}
	if o.Scenario == Slow {
		within("silent", o.Silent, 1, maxConnections)
	}
	if o.sends() {
		if o.Scenario != Private {
			within("senders", o.Senders, 1, max(o.Members, 1))
		}
		want(o.Rate > 0 && o.Rate*o.For.Seconds() <= maxMessages, "rate", o.Rate, fmt.Sprintf("more than 0, and at most %d messages in all", maxMessages))
		each := o.Rate * o.For.Seconds() / float64(o.groups()) // messages of a group
		want(each*float64(o.connections()) <= maxBits, "rate", o.Rate,
			fmt.Sprintf("less, or a shorter --for, or fewer connections: %d deliveries to account for at most", int64(maxBits)))
		within("size", o.Size, markerLen+1, maxText)
	} else {
		want(!o.Reference, "reference", o.Reference, "a scenario that sends")
	}
	want(o.Scenario != Slow || !o.Reference, "reference", o.Reference, "a scenario in which all read")
	if n := o.connections(); n > portsPerSource*max(o.Sources, 1)*max(len(o.targets()), 1) {
		errs = append(errs, fmt.Errorf("--sources: %d: want %d or more for %d connections: an address has about %d free ports to one target",
			o.Sources, (n+portsPerSource-1)/portsPerSource, n, portsPerSource))
	}
	seen := make(map[string]bool)
	for _, p := range o.Processes {
		want(p.Name != "" && p.PID > 0 && !seen[p.Name], "pid", fmt.Sprintf("%s=%d", p.Name, p.PID), "NAME=PID, each name once")
		seen[p.Name] = true
	}
	if len(errs) > 0 {
		return &UsageError{errors.Join(errs...)}
	}
	return nil
}

// sends reports whether the scenario is about messages.
func (o *Options) sends() bool { return o.Scenario != Idle && o.Scenario != Churn }

// targets are the addresses that the transport connects to.
func (o *Options) targets() []string {
	if o.Transport == TCP {
		return o.TCP
	}
	return o.WebSocket
}

// connections is how many there are at most at once.
func (o *Options) connections() int {
	switch o.Scenario {
	case Fanout:
		return o.Members
	case Slow:
		return o.Members + o.Silent
	case Rooms:
		return o.Rooms * o.Members
	case Private:
		return 2 * o.Pairs
	}
	return o.Connections
}

// groups is how many rooms there are, or directions of pairs.
func (o *Options) groups() int {
	switch o.Scenario {
	case Rooms:
		return max(o.Rooms, 1)
	case Private:
		return max(2*o.Pairs, 1)
	}
	return 1
}

// users is how many accounts they belong to.
func (o *Options) users() int {
	n := o.connections()
	switch {
	case o.Scenario == Private:
		return n
	case o.Users > 0:
		return min(o.Users, n)
	}
	return min(n, defaultUsers)
}
