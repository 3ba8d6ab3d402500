// Package address says what an address in the configuration may be, so that all who read one agree.
package address

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// CheckListen refuses what cannot be bound: host:port, where no host is every address and port 0 a free one. The port
// is a number, since a name is looked up differently on each machine.
func CheckListen(addr string) error {
	if _, _, ok := split(addr); !ok {
		return fmt.Errorf("%s: want host:port, the port from 0 to 65535", quoted(addr))
	}
	return nil
}

// CheckDial refuses what cannot be called: host:port, neither left open.
func CheckDial(addr string) error {
	if host, port, ok := split(addr); !ok || host == "" || port == 0 {
		return fmt.Errorf("%s: want host:port, the port from 1 to 65535", quoted(addr))
	}
	return nil
}

// CheckEndpoint refuses what is neither the URL of a server without a path nor that of a unix socket.
func CheckEndpoint(endpoint string) error {
	scheme, rest, _ := strings.Cut(endpoint, "://")
	switch {
	case scheme == "unix" && strings.HasPrefix(rest, "/"):
		return nil
	case (scheme == "http" || scheme == "https") && CheckDial(strings.TrimSuffix(rest, "/")) == nil:
		return nil
	}
	return fmt.Errorf("%s: want http://host:port, https://host:port or unix:///path, the port from 1 to 65535", quoted(endpoint))
}

func split(addr string) (host string, port uint64, ok bool) {
	host, digits, err := net.SplitHostPort(addr)
	if err != nil || strings.ContainsAny(host, "/@ \t") {
		return "", 0, false
	}
	port, err = strconv.ParseUint(digits, 10, 16)
	return host, port, err == nil
}

// quoted hides what stands before the last @, which may be a password.
func quoted(addr string) string {
	if i := strings.LastIndexByte(addr, '@'); i >= 0 {
		addr = "••••" + addr[i:]
	}
	return strconv.Quote(addr)
}
