package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"gochat/layers/internal/contract"
)

// What Decode accepts is sound, and means what encoding/json takes it to mean; what it refuses has one of two codes.
func FuzzDecode(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		req, err := Decode(data)
		if len(req.ClientID) > contract.MaxClientIDBytes {
			t.Errorf("client id of %d bytes", len(req.ClientID))
		}
		if err != nil {
			var e *contract.Error
			if !errors.As(err, &e) || e.Code != contract.BadRequest && e.Code != contract.TooLarge {
				t.Errorf("got %v", err)
			}
			if _, err := AppendTCP(nil, AppendError(nil, req.ClientID, "", contract.AsError(err))); err != nil {
				t.Errorf("the error frame does not fit: %v", err)
			}
			return
		}
		var want map[string]json.RawMessage
		if err := json.Unmarshal(data, &want); err != nil {
			t.Fatalf("accepted, but encoding/json says %v", err)
		}
		if raw, given := want["op"]; given && string(raw) != "null" && string(raw) != fmt.Sprint(int(req.Op)) {
			if string(raw) != "-0" {
				t.Errorf("got op %d, want %s", req.Op, raw)
			}
		}
		if req.Op == OpRoom || req.Op == OpDirect {
			var msg string
			if err := json.Unmarshal(want["msg"], &msg); err != nil || msg != req.Text || CheckText(msg) != nil {
				t.Errorf("got text %q, want %q (%v)", req.Text, msg, err)
			}
		}
		if req.Room < 0 || req.To < 0 || req.Seq < 0 || len(req.Device) > contract.MaxDeviceBytes {
			t.Errorf("got %+v", req)
		}
		for _, marks := range []map[contract.Conversation]int64{req.Resume, req.Have} {
			if len(marks) > contract.MaxResume {
				t.Errorf("%d conversations", len(marks))
			}
			for c, seq := range marks {
				if _, err := c.Parse(); err != nil || seq < 0 {
					t.Errorf("got %q: %d", c, seq)
				}
			}
		}
	})
}

// chunked gives as many bytes a read as the next of cuts says, 1 to 256.
type chunked struct {
	src  io.Reader
	cuts []byte
	next int
}

func (c *chunked) Read(b []byte) (int, error) {
	n := len(b)
	if len(c.cuts) > 0 {
		n = min(n, 1+int(c.cuts[c.next%len(c.cuts)]))
		c.next++
	}
	return c.src.Read(b[:n])
}

// However the stream is cut, the packets and the end are the same, and writing the packets gives the stream again.
func FuzzPacketReader(f *testing.F) {
	f.Fuzz(func(t *testing.T, stream, cuts []byte) {
		glued, gluedErr := readAll(t, bytes.NewReader(stream))
		split, splitErr := readAll(t, &chunked{src: bytes.NewReader(stream), cuts: cuts})
		if !slices.Equal(glued, split) || fmt.Sprint(gluedErr) != fmt.Sprint(splitErr) {
			t.Errorf("glued: %q, %v\nsplit: %q, %v", glued, gluedErr, split, splitErr)
		}
		var again []byte
		for _, payload := range glued {
			again = append(again, packet(t, payload)...)
		}
		rest, whole := bytes.CutPrefix(stream, again)
		if !whole || (gluedErr == io.EOF) != (len(rest) == 0) {
			t.Errorf("%d packets, %v, do not make the stream", len(glued), gluedErr)
		}
		if gluedErr != io.EOF && gluedErr != io.ErrUnexpectedEOF && contract.CodeOf(gluedErr) != contract.BadRequest {
			t.Errorf("got %v", gluedErr)
		}
	})
}

// The frame made by hand is the one that encoding/json makes, and is as long as EncodedTextLen says.
func FuzzMessageJSON(f *testing.F) {
	f.Fuzz(func(t *testing.T, id, from, to, room, seq, ms int64, fromName, toName, conversation, clientID, text, traceparent string) {
		m := &contract.Message{
			ID: contract.MessageID(id), Conversation: contract.Conversation(conversation), Seq: seq,
			From: contract.UserID(from), FromName: fromName, To: contract.UserID(to), ToName: toName,
			Room: contract.RoomID(room), ClientID: clientID, Text: text,
			CreatedAt: time.UnixMilli(ms), Traceparent: traceparent,
		}
		got, want := AppendMessage(nil, m), marshal(t, FromMessage(m))
		if !bytes.Equal(got, want) {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		m.Text = ""
		if n := len(got) - len(AppendMessage(nil, m)); n != EncodedTextLen(text) {
			t.Errorf("EncodedTextLen is %d, the text took %d", EncodedTextLen(text), n)
		}
	})
}

// NextFrame wants no more than the frame it then answers, whatever is there of it, and answers the same however much
// follows. What it accepts is, made anew, what it was given.
func FuzzNextFrame(f *testing.F) {
	for _, first := range []byte{0x81, 0x01, 0x80, 0x88, 0x89, 0xc1, 0x83} {
		f.Add(append(clientFrame(first, []byte(`{"op":10}`)), 1, 2, 3))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		frame, size, err := NextFrame(bytes.Clone(b))
		if err != nil || size > len(b) {
			if frame.Payload != nil || err == nil && len(b) > MaxFrame+14 {
				t.Errorf("got %d bytes, size %d of %d, %v", len(frame.Payload), size, len(b), err)
			}
			return
		}
		for have := range size {
			if have > 20 && have < size-2 {
				continue
			}
			_, want, err := NextFrame(bytes.Clone(b[:have]))
			if err != nil || want <= have || want > size {
				t.Fatalf("%d bytes of %d: want %d, %v", have, size, want, err)
			}
		}
		again := bytes.Clone(b[:size])
		unmask(again[size-len(frame.Payload):], again[size-len(frame.Payload)-4:][:4])
		if !bytes.Equal(again[size-len(frame.Payload):], frame.Payload) {
			t.Errorf("got %q, want %q", frame.Payload, again[size-len(frame.Payload):])
		}
	})
}

// NextPacket takes packets out of a stream as PacketReader does.
func FuzzNextPacket(f *testing.F) {
	f.Add([]byte("v1\x00\x05xv1\x00\x06yz"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		want, wantErr := readAll(t, bytes.NewReader(stream))
		var got []string
		for rest := stream; ; {
			payload, size, err := NextPacket(rest)
			if err != nil || size > len(rest) {
				if (contract.CodeOf(wantErr) == contract.BadRequest) != (err != nil) {
					t.Errorf("got %v, want %v", err, wantErr)
				}
				break
			}
			got, rest = append(got, string(payload)), rest[size:]
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}
