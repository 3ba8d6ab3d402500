package connect

import (
	"net/http"
	"slices"
	"strings"
)

// offersDeflate reports whether the first that a client offers is permessage-deflate in a form that is agreed to. The upgrader
// then answers that each side compresses each message by itself. It does not say what it agreed to, and takes more forms than
// this, of which it ignores what they ask for, such as a smaller window of the server: those are not shown to it.
func offersDeflate(h http.Header) bool {
	offers := h["Sec-Websocket-Extensions"] // as net/http spells it
	if len(offers) == 0 {
		return false
	}
	first, _, _ := strings.Cut(offers[0], ",")
	parts := strings.Split(first, ";")
	for i, part := range parts {
		part = strings.Trim(part, " \t")
		name, value, valued := strings.Cut(part, "=")
		switch {
		case i == 0 && part != "permessage-deflate", slices.Contains(parts[:i], name):
			return false
		case i == 0:
		case name == "client_max_window_bits" && (!valued || slices.Contains(windowBits, value)):
		case part == "server_no_context_takeover", part == "client_no_context_takeover":
		default:
			return false
		}
		parts[i] = name
	}
	return true
}

// windowBits are the sizes that a client may say its window has (RFC 7692, 7.1.2.2). None is too large to read.
var windowBits = []string{"8", "9", "10", "11", "12", "13", "14", "15"}

// deflateFrom is the size from which JSON is compressed. A message has 300 bytes around its text, of which half are saved in
// 12 µs; of what is shorter, such as counts and who is typing, less is saved than the headers of a packet take.
const deflateFrom = 256

// frame is what all who are sent the JSON share. It is compressed here, before anybody is sent it, if anybody agreed: who comes
// meanwhile is sent it as it is, which is always allowed.
func (c *Connect) frame(json []byte) frame {
	f := newFrame(json)
	if len(json) < deflateFrom || c.deflating.Load() == 0 {
		return f
	}
	if b, shorter := c.deflate.AppendText(nil, json); shorter {
		f[deflated] = b
	}
	c.m.compressed.Inc()
	return f
}
