package contract

import (
	"bytes"
	"reflect"
	"runtime"
	"testing"
	"time"
)

var deliveries = map[string]Delivery{
	"zero": {AcceptedAt: time.UnixMicro(0).UTC(), QueuedAt: time.UnixMicro(0).UTC()},
	"to a room": {
		Conversation: "room:1", Seq: 131, Message: 1 << 60, Room: 1, Except: "connect-17@421/9",
		AcceptedAt: time.UnixMicro(1_700_000_000_123_456).UTC(), QueuedAt: time.UnixMicro(1_700_000_000_125_000).UTC(), Frame: []byte(`{"op":3}`),
	},
	"to two people": {
		Conversation: "dm:3:17", Seq: 1<<63 - 1, Message: 1<<63 - 1, Users: []UserID{3, 17},
		AcceptedAt: time.UnixMicro(1).UTC(), QueuedAt: time.UnixMicro(0).UTC(), Frame: bytes.Repeat([]byte{0, 0xff}, 20_000),
	},
	"notice": {Conversation: "room:9223372036854775807", Room: 1<<63 - 1, AcceptedAt: time.UnixMicro(-1).UTC(), QueuedAt: time.UnixMicro(-1).UTC(), Frame: []byte("{}")},
}

func TestDeliveryRoundTrip(t *testing.T) {
	for name, want := range deliveries {
		t.Run(name, func(t *testing.T) {
			encoded := want.Append([]byte("before"))
			if !bytes.HasPrefix(encoded, []byte("before")) {
				t.Fatal("what was in the buffer is gone")
			}
			encoded = encoded[len("before"):]
			var got Delivery
			if err := got.Decode(encoded); err != nil {
				t.Fatal(err)
			}
			if len(got.Frame) == 0 {
				got.Frame = want.Frame
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
			for cut := range encoded {
				if cut > 100 && cut < len(encoded)-100 {
					continue // the middle of the frame
				}
				if err := new(Delivery).Decode(encoded[:cut]); err == nil {
					t.Errorf("%d of %d bytes are accepted", cut, len(encoded))
				}
			}
			if err := new(Delivery).Decode(append(encoded, 0)); err == nil {
				t.Error("a byte too many is accepted")
			}
		})
	}
}

// TestDeliveryFirstVersion: what an earlier version has put into the queue is still brought.
func TestDeliveryFirstVersion(t *testing.T) {
	want := Delivery{Conversation: "dm:1:2", Seq: 3, Message: 4, Users: []UserID{2}, Except: "c", AcceptedAt: time.UnixMicro(99).UTC(), QueuedAt: time.UnixMicro(99).UTC(), Frame: []byte("{}")}
	encoded := []byte("\x01\x06dm:1:2\x06\x08\x00\x01\x04\x01c\xc6\x01\x02{}")
	var got Delivery
	if err := got.Decode(encoded); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

func TestDeliveryRefusesOtherVersions(t *testing.T) {
	d := deliveries["to a room"]
	encoded := d.Append(nil)
	for v := range 256 {
		encoded[0] = byte(v)
		if v == 1 {
			continue // it is read as what it would be, which this is not
		}
		if err := new(Delivery).Decode(encoded); (err == nil) != (v == deliveryVersion) {
			t.Errorf("version %d: got %v", v, err)
		}
	}
}

// What travels beside the encoded form is not in it.
func TestDeliveryTraceparentTravelsBeside(t *testing.T) {
	d := deliveries["to a room"]
	plain := d.Append(nil)
	d.Traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	if !bytes.Equal(d.Append(nil), plain) {
		t.Error("the traceparent is encoded")
	}
	if err := d.Decode(plain); err != nil || d.Traceparent != "" {
		t.Errorf("got %v, traceparent %q: want none of the last delivery", err, d.Traceparent)
	}
}

// Between processes the traceparent crosses with the rest, and nothing of the buffer it was read from is kept.
func TestDeliveryBinary(t *testing.T) {
	for name, want := range deliveries {
		t.Run(name, func(t *testing.T) {
			want.Traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
			encoded, err := want.MarshalBinary()
			if err != nil {
				t.Fatal(err)
			}
			var got Delivery
			if err := got.UnmarshalBinary(encoded); err != nil {
				t.Fatal(err)
			}
			for cut := range min(100, len(encoded)) {
				if err := new(Delivery).UnmarshalBinary(encoded[:cut]); err == nil {
					t.Errorf("%d of %d bytes are accepted", cut, len(encoded))
				}
			}
			clear(encoded)
			if len(got.Frame) == 0 {
				got.Frame = want.Frame
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

// Decode takes any bytes without a panic, allocates in proportion to what it was given, and what it accepts it
// would write again.
func FuzzDelivery(f *testing.F) {
	for _, d := range deliveries {
		f.Add(d.Append(nil))
	}
	f.Add([]byte{1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}) // 2^64-1 users
	f.Add([]byte{1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})             // a name of 2^64-1 bytes
	f.Add([]byte{1, 0, 0, 0, 0, 3, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		var d Delivery
		if d.Decode(b) != nil {
			return
		}
		if len(d.Users) > len(b) {
			t.Errorf("%d users out of %d bytes", len(d.Users), len(b))
		}
		var again Delivery
		if err := again.Decode(d.Append(nil)); err != nil || !reflect.DeepEqual(again, d) {
			t.Errorf("%x: got %+v (%v), want %+v", b, again, err, d)
		}
	})
}

func TestDecodeAllocatesInProportion(t *testing.T) {
	// A count of users that is as large as what follows could be.
	greedy := append([]byte{1, 0, 0, 0, 0, 0x80, 0x80, 0x40}, make([]byte, 1<<20)...)
	for name, b := range map[string][]byte{
		"2^64-1 users":           {1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1},
		"a name of 2^64-1 bytes": {1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1},
		"2^40 users":             {1, 0, 0, 0, 0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20},
		"as many users as bytes": greedy,
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_ = new(Delivery).Decode(b) // refused or not, it may not allocate much
			runtime.ReadMemStats(&after)
			if got, most := after.TotalAlloc-before.TotalAlloc, uint64(16*len(b)+1<<16); got > most {
				t.Errorf("%d bytes allocated for %d, want at most %d", got, len(b), most)
			}
		})
	}
}
