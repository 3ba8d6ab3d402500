package api

import (
	"net/http"
	"testing"

	"gochat/observability"
)

func TestCORS(t *testing.T) {
	cases := []struct {
		name, origin, host string
		configured         []string
		allowed            bool
	}{
		{"same host, other port", "http://chat.example:8080", "chat.example:7070", nil, true},
		{"same host, default ports", "https://chat.example", "chat.example", nil, true},
		{"same host in another case", "http://Chat.Example:8080", "chat.example:7070", nil, true},
		{"loopback", "http://127.0.0.1:8080", "127.0.0.1:7070", nil, true},
		{"IPv6", "http://[::1]:8080", "[::1]:7070", nil, true},
		{"IPv6 without a port", "http://[::1]:8080", "[::1]", nil, true},
		{"loopback by another name", "http://localhost:8080", "127.0.0.1:7070", nil, false},
		{"another host", "http://evil.example", "chat.example:7070", nil, false},
		{"host as a prefix", "http://chat.example.evil.example", "chat.example:7070", nil, false},
		{"host as a suffix", "http://evil-chat.example", "chat.example:7070", nil, false},
		{"host as a user", "http://chat.example@evil.example", "chat.example:7070", nil, false},
		{"null", "null", "chat.example:7070", nil, false},
		{"no scheme", "chat.example", "chat.example:7070", nil, false},
		{"a file", "file://chat.example", "chat.example:7070", nil, false},
		{"configured", "https://page.example", "chat.example:7070", []string{"https://page.example"}, true},
		{"configured with another port", "https://page.example:8443", "chat.example:7070", []string{"https://page.example"}, false},
		{"configured with another scheme", "http://page.example", "chat.example:7070", []string{"https://page.example"}, false},
		{"every one", "http://evil.example", "chat.example:7070", []string{"*"}, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			base := start(t, &scripted{}, observability.Discard(), func(cfg *Config) { cfg.AllowedOrigins = c.configured })
			want := ""
			if c.allowed {
				want = c.origin
			}
			for _, path := range []string{"/push/push", "/v1/me", "/v1/nothing"} {
				g := do(t, "OPTIONS", base+path, "", "Host: "+c.host, "Origin: "+c.origin,
					"Access-Control-Request-Method: POST", "Access-Control-Request-Headers: content-type")
				if got := g.header.Get("Access-Control-Allow-Origin"); g.status != http.StatusOK || got != want {
					t.Errorf("preflight of %s: got %d, allowed %q, want %q", path, g.status, got, want)
				}
				methods, headers := g.header.Get("Access-Control-Allow-Methods"), g.header.Get("Access-Control-Allow-Headers")
				if c.allowed && (methods != "GET, POST, PUT, DELETE" || headers != "content-type, authorization, traceparent") {
					t.Errorf("preflight of %s: got methods %q, headers %q", path, methods, headers)
				}
				if !c.allowed && methods+headers != "" {
					t.Errorf("preflight of %s: got methods %q, headers %q, want none", path, methods, headers)
				}

				g = do(t, "POST", base+path, "{}", "Host: "+c.host, "Origin: "+c.origin)
				if got := g.header.Get("Access-Control-Allow-Origin"); got != want {
					t.Errorf("POST %s: allowed %q, want %q", path, got, want)
				}
				exposed := g.header.Get("Access-Control-Expose-Headers")
				if c.allowed != (exposed == "traceparent, retry-after") {
					t.Errorf("POST %s: exposed %q", path, exposed)
				}
				if g.header.Get("Vary") != "Origin" || g.header.Get("Access-Control-Allow-Credentials") != "" {
					t.Errorf("POST %s: got headers %v", path, g.header)
				}
			}
		})
	}
	t.Run("no origin", func(t *testing.T) {
		g := do(t, "POST", start(t, house(), observability.Discard())+"/user/checkAuth", "{}")
		if g.header.Get("Access-Control-Allow-Origin") != "" || g.header.Get("Vary") != "Origin" {
			t.Errorf("got headers %v", g.header)
		}
	})
	t.Run("OPTIONS that is no preflight", func(t *testing.T) {
		isProblem(t, do(t, "OPTIONS", start(t, house(), observability.Discard())+"/v1/me", "", "Origin: http://a.example"), 405, "bad_request")
	})
}
