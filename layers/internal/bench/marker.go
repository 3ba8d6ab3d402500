package bench

import "bytes"

// marker is what a message says of itself.
type marker struct {
	run    uint32
	group  int
	number int
	due    int64 // ns on the loop's clock
}

const (
	markerName = "bench-"

	runDigits    = 8
	groupDigits  = 6
	numberDigits = 8
	dueDigits    = 12

	markerPrefix = len(markerName) + runDigits + 1
	markerLen    = markerPrefix + groupDigits + 1 + numberDigits + 1 + dueDigits
)

// prefix is how the markers of a run begin.
func (m marker) prefix() []byte {
	b := make([]byte, markerLen)
	m.put(b)
	return b[:markerPrefix]
}

// put writes the marker over the first markerLen bytes of b.
func (m marker) put(b []byte) {
	at := copy(b, markerName)
	for _, field := range [...]struct {
		value  uint64
		digits int
	}{{uint64(m.run), runDigits}, {uint64(m.group), groupDigits}, {uint64(m.number), numberDigits}, {uint64(m.due), dueDigits}} {
		const hex = "0123456789abcdef"
		for i, v := field.digits-1, field.value; i >= 0; i, v = i-1, v>>4 {
			b[at+i] = hex[v&15]
		}
		at += field.digits
		if at < markerLen {
			b[at] = '-'
			at++
		}
	}
}

// findMarker reads the first marker with the prefix in b. Its run is left 0.
func findMarker(b, prefix []byte) (m marker, ok bool) {
	at := bytes.Index(b, prefix)
	if at < 0 || len(b) < at+markerLen {
		return marker{}, false
	}
	b = b[at+markerPrefix : at+markerLen]
	group, okGroup := readHex(b[:groupDigits])
	b = b[groupDigits+1:]
	number, okNumber := readHex(b[:numberDigits])
	due, okDue := readHex(b[numberDigits+1:])
	return marker{group: int(group), number: int(number), due: due}, okGroup && okNumber && okDue
}

func readHex(b []byte) (n int64, ok bool) {
	for _, c := range b {
		switch {
		case '0' <= c && c <= '9':
			n = n<<4 | int64(c-'0')
		case 'a' <= c && c <= 'f':
			n = n<<4 | int64(c-'a'+10)
		default:
			return 0, false
		}
	}
	return n, true
}

// template is the bytes of a message on the wire. Only its markers, and a websocket's mask, change from message to
// message.
type template struct {
	bytes   []byte
	markers []int // where each stands
	masked  int   // where the payload begins that is masked with the four bytes before it; 0 for none
}

// newTemplate finds the markers with the prefix in b.
func newTemplate(b, prefix []byte, masked int) template {
	t := template{bytes: b, masked: masked}
	for at := 0; ; {
		i := bytes.Index(b[at:], prefix)
		if i < 0 {
			return t
		}
		t.markers = append(t.markers, at+i)
		at += i + markerLen
	}
}

// render makes the message, in dst if that is large enough.
func (t *template) render(dst []byte, m marker, key uint32) []byte {
	dst = append(dst[:0], t.bytes...)
	for _, at := range t.markers {
		m.put(dst[at:])
	}
	if t.masked > 0 {
		mask(dst[t.masked:], dst[t.masked-4:t.masked], key)
	}
	return dst
}
