package bench

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"net/url"

	"golang.org/x/sys/unix"

	"gochat/layers/internal/contract"
)

// targets are where connections go, resolved and judged.
type targets struct {
	addrs   []netip.AddrPort
	sources []unix.Sockaddr // nil: the kernel's choice
}

// resolve looks the targets up. What is not loopback must be allowed: load on a machine of others is an attack.
func resolve(ctx context.Context, o *Options) (*targets, error) {
	base, err := url.Parse(o.API)
	if err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Hostname() == "" {
		return nil, &UsageError{fmt.Errorf("--api: %q: want a URL such as http://127.0.0.1:7070", o.API)}
	}
	if _, err := lookUp(ctx, o, "api", base.Hostname()); err != nil {
		return nil, err
	}
	t := &targets{}
	for _, target := range o.targets() {
		host, port, err := net.SplitHostPort(target)
		number, portErr := net.LookupPort("tcp", port)
		if err != nil || portErr != nil || host == "" {
			return nil, &UsageError{fmt.Errorf("--%s: %q: want host:port", o.Transport, target)}
		}
		ip, err := lookUp(ctx, o, o.Transport, host)
		if err != nil {
			return nil, err
		}
		if o.Sources > 0 && !(ip.Is4() && ip.IsLoopback()) {
			return nil, &UsageError{fmt.Errorf("--sources: %d: want 0 for %s, which is not in 127.0.0.0/8", o.Sources, target)}
		}
		t.addrs = append(t.addrs, netip.AddrPortFrom(ip, uint16(number)))
	}
	for i := range o.Sources {
		t.sources = append(t.sources, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, byte(2 + i)}})
	}
	return t, nil
}

func lookUp(ctx context.Context, o *Options, flag, host string) (netip.Addr, error) {
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return netip.Addr{}, &UsageError{fmt.Errorf("--%s: look up %s: %w", flag, host, err)}
	}
	for i := range ips {
		ips[i] = ips[i].Unmap()
		if !ips[i].IsLoopback() && !o.AllowRemote {
			return netip.Addr{}, &UsageError{fmt.Errorf("--%s: %s is %s: want loopback, or --allow-remote if the machine is yours to load", flag, host, ips[i])}
		}
	}
	return ips[0], nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

// peer makes the i-th connection's: it authenticates with the token and enters the room, 0 for none.
func (t *targets) peer(i int, transport, token string, room contract.RoomID) *peer {
	addr := t.addrs[i%len(t.addrs)]
	p := &peer{addr: sockaddr(addr)}
	if len(t.sources) > 0 {
		p.source = t.sources[i%len(t.sources)]
	}
	if transport == WebSocket {
		p.upgrade = upgradeRequest(addr.String(), "/ws")
	}
	auth := fmt.Appendf(nil, `{"op":6,"authToken":%q`, token)
	if room != 0 {
		auth = fmt.Appendf(auth, `,"roomId":%d`, room)
	}
	p.greeting, _ = appendFrame(nil, transport, opcodeText, append(auth, '}'), rand.Uint32())
	// Frames are handled in order: its answer says that the connection is in.
	p.greeting, _ = appendFrame(p.greeting, transport, opcodeText, ping, rand.Uint32())
	return p
}

func upgradeRequest(host, path string) []byte {
	key := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, rand.Uint64()), rand.Uint64())
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n\r\n", path, host, base64.StdEncoding.EncodeToString(key))
}
