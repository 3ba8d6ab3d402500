package wire

import (
	"bytes"
	"encoding/json"
	"iter"
	"strconv"
	"unicode/utf8"

	"gochat/layers/internal/contract"
)

// Request is a decoded client frame. Fields that its op does not have are zero, but ClientID is read for every op.
type Request struct {
	Op           Op     // OpAuth also for a frame without an op
	AuthToken    string // may be in any frame, must be in OpAuth
	Room         contract.RoomID
	To           contract.UserID
	Text         string
	ClientID     string
	Device       string
	Traceparent  string // of W3C's form, else ""
	Conversation contract.Conversation
	Seq          int64
	Resume       map[contract.Conversation]int64 // OpAuth and OpReplay; nil if absent, empty for {}
	Have         map[contract.Conversation]int64 // OpPing; nil if absent
}

// Decode reads one client frame. A field that is null is absent; fields that the op does not have are ignored,
// whatever their type; names are compared exactly. What it answers does not alias data.
//
// It fails with TooLarge if the text, the client id or the device is over its limit, and with BadRequest for anything
// else. Then the Request has nothing but the ClientID, if that could be read, so that an error frame can name it.
func Decode(data []byte) (Request, error) {
	f := parse(data)
	req := f.request()
	// Read by itself: other faults do not matter, and an op that has no client id does not fail for its form.
	clientID, _ := readText("clientId", f.clientID, contract.MaxClientIDBytes)
	if f.err != nil {
		return Request{ClientID: clientID}, f.err
	}
	req.ClientID = clientID
	return req, nil
}

// frame has the fields of a client frame as they stand in it, nil for those that are absent or null, and the first
// fault found.
type frame struct {
	op, authToken, roomID, toUserID, msg, clientID, device []byte
	traceparent, conversation, seq, resume, have           []byte

	err error
}

func (f *frame) field(name []byte) *[]byte {
	switch string(name) {
	case "op":
		return &f.op
	case "authToken":
		return &f.authToken
	case "roomId":
		return &f.roomID
	case "toUserId":
		return &f.toUserID
	case "msg":
		return &f.msg
	case "clientId":
		return &f.clientID
	case "device":
		return &f.device
	case "traceparent":
		return &f.traceparent
	case "conversation":
		return &f.conversation
	case "seq":
		return &f.seq
	case "resume":
		return &f.resume
	case "have":
		return &f.have
	}
	return nil
}

func parse(data []byte) *frame {
	f := &frame{}
	object := bytes.TrimSpace(data)
	switch {
	case !utf8.Valid(data):
		f.fail(contract.Errorf(contract.BadRequest, "the frame is not UTF-8"))
		return f
	case !json.Valid(data) || object[0] != '{':
		f.fail(contract.Errorf(contract.BadRequest, "the frame is not one JSON object"))
		return f
	}
	for name, value := range members(object) {
		name = unquote(name)
		field := f.field(name)
		switch {
		case field == nil || string(value) == "null":
		case *field != nil: // which one counts would be a matter of taste
			f.fail(contract.Errorf(contract.BadRequest, "%s is given twice", name))
		default:
			*field = value
		}
	}
	return f
}

// request reads the fields that the op has. After a fault its answer is worth nothing.
func (f *frame) request() Request {
	req := Request{Op: OpAuth, AuthToken: f.text("authToken", f.authToken, MaxFrame)}
	if f.op != nil {
		req.Op = Op(f.number("op", f.op))
	}
	if isString(f.traceparent) {
		if s := string(unquote(f.traceparent)); isTraceparent(s) {
			req.Traceparent = s
		}
	}
	switch req.Op {
	case OpAuth:
		f.require("authToken", req.AuthToken != "")
		req.Room = contract.RoomID(f.number("roomId", f.roomID))
		req.Device = f.text("device", f.device, contract.MaxDeviceBytes)
		req.Resume = f.marks("resume", f.resume)
	case OpDirect, OpRoom:
		req.Room = contract.RoomID(f.number("roomId", f.roomID))
		if req.Op == OpDirect {
			req.To = contract.UserID(f.number("toUserId", f.toUserID))
			f.require("toUserId", req.To != 0)
		} else {
			f.require("roomId", req.Room != 0)
		}
		f.text("clientId", f.clientID, contract.MaxClientIDBytes)
		req.Text = f.text("msg", f.msg, MaxFrame)
		f.fail(CheckText(req.Text))
	case OpPing:
		req.Have = f.marks("have", f.have)
	case OpPong:
	case OpReplay:
		f.require("resume", f.resume != nil)
		req.Resume = f.marks("resume", f.resume)
	case OpRead:
		req.Conversation = f.talk()
		f.require("seq", f.seq != nil)
		req.Seq = f.number("seq", f.seq)
	case OpTyping:
		req.Conversation = f.talk()
	case OpEnter, OpLeave:
		req.Room = contract.RoomID(f.number("roomId", f.roomID))
		f.require("roomId", req.Room != 0)
	default:
		f.fail(contract.Errorf(contract.BadRequest, "op %d is none that a client sends", req.Op))
	}
	return req
}

// fail keeps the first fault; nil is none.
func (f *frame) fail(err error) {
	if f.err == nil {
		f.err = err
	}
}

func (f *frame) require(name string, given bool) {
	if !given {
		f.fail(contract.Errorf(contract.BadRequest, "%s is missing", name))
	}
}

func (f *frame) text(name string, raw []byte, limit int) string {
	s, err := readText(name, raw, limit)
	f.fail(err)
	return s
}

// readText reads a string of at most limit bytes; "" if it is absent. A NUL is refused, since PostgreSQL cannot store
// it.
func readText(name string, raw []byte, limit int) (string, error) {
	if raw == nil {
		return "", nil
	}
	if !isString(raw) {
		return "", contract.Errorf(contract.BadRequest, "%s: want a string", name)
	}
	s := string(unquote(raw))
	switch {
	case len(s) > limit:
		return "", contract.Errorf(contract.TooLarge, "%s is over %d bytes", name, limit)
	case hasNUL(s):
		return "", contract.Errorf(contract.BadRequest, "%s holds a NUL", name)
	}
	return s, nil
}

// number reads a whole number that is not negative; 0 if it is absent.
func (f *frame) number(name string, raw []byte) int64 {
	if raw == nil {
		return 0
	}
	n, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil || n < 0 {
		f.fail(contract.Errorf(contract.BadRequest, "%s: want a whole number that is not negative", name))
		return 0
	}
	return n
}

// talk reads the conversation, which must be there.
func (f *frame) talk() contract.Conversation {
	c := contract.Conversation(f.text("conversation", f.conversation, MaxFrame))
	f.checkName(c)
	return c
}

// marks reads an object that gives a seq for each of some conversations; nil if it is absent.
func (f *frame) marks(name string, raw []byte) map[contract.Conversation]int64 {
	if raw == nil {
		return nil
	}
	if raw[0] != '{' {
		f.fail(contract.Errorf(contract.BadRequest, "%s: want an object", name))
		return nil
	}
	marks := map[contract.Conversation]int64{}
	for key, value := range members(raw) {
		c := contract.Conversation(unquote(key))
		f.checkName(c)
		if _, twice := marks[c]; twice {
			f.fail(contract.Errorf(contract.BadRequest, "%s: %s is given twice", name, c))
		}
		if len(marks) == contract.MaxResume {
			f.fail(contract.Errorf(contract.BadRequest, "%s: over %d conversations", name, contract.MaxResume))
		}
		marks[c] = f.number(name, value)
		if f.err != nil {
			return nil
		}
	}
	return marks
}

func (f *frame) checkName(c contract.Conversation) {
	_, err := c.Parse()
	f.fail(err)
}

// members goes through an object of valid JSON and gives names and values as they stand in it: encoding/json would
// match names in any case, take the last of equal ones without a word, and allocate for each.
func members(object []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		rest := bytes.TrimSpace(object[1 : len(object)-1])
		for len(rest) > 0 {
			var name, value []byte
			name, rest = cut(rest, ':')
			value, rest = cut(rest, ',')
			if !yield(bytes.TrimSpace(name), bytes.TrimSpace(value)) {
				return
			}
		}
	}
}

// cut slices b around the first sep that is in no string, array or object.
func cut(b []byte, sep byte) (before, after []byte) {
	depth, quoted := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			depth--
		case c == sep && depth == 0:
			return b[:i], b[i+1:]
		}
	}
	return b, nil
}

func isString(raw []byte) bool { return len(raw) > 0 && raw[0] == '"' }

// unquote reads a string of valid JSON. It aliases raw if nothing in it is escaped.
func unquote(raw []byte) []byte {
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw[1 : len(raw)-1]
	}
	var s string
	_ = json.Unmarshal(raw, &s) // cannot fail: raw is a string of valid JSON
	return []byte(s)
}
