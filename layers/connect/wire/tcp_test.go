package wire

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"gochat/layers/internal/contract"
)

func packet(t testing.TB, payload string) []byte {
	t.Helper()
	p, err := AppendTCP(nil, []byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// readAll takes packets until an error, and checks at each that the reader holds no more than one packet's memory.
func readAll(t testing.TB, r io.Reader) ([]string, error) {
	t.Helper()
	p := NewPacketReader(r)
	var got []string
	for {
		payload, err := p.Next()
		if cap(p.buf) > MaxTCPPacket {
			t.Fatalf("the buffer is %d bytes", cap(p.buf))
		}
		if err != nil {
			return got, err
		}
		got = append(got, string(payload))
	}
}

func TestPacketReader(t *testing.T) {
	longest := strings.Repeat("m", MaxTCPPacket-TCPHeader)
	for name, want := range map[string][]string{
		"none":                     nil,
		"one":                      {`{"op":10}`},
		"shortest":                 {"0"},
		"several":                  {"a", `{"op":10}`, "bc"},
		"as the buffer":            {strings.Repeat("b", smallBuffer-TCPHeader), "c"},
		"one over the buffer":      {strings.Repeat("b", smallBuffer-TCPHeader+1), "c"},
		"across the buffer's end":  {strings.Repeat("b", smallBuffer-TCPHeader-10), strings.Repeat("c", 100), "d"},
		"longest":                  {longest},
		"longest between shortest": {"a", longest, "b", longest, longest, "c"},
	} {
		t.Run(name, func(t *testing.T) {
			var stream []byte
			for _, payload := range want {
				stream = append(stream, packet(t, payload)...)
			}
			for how, r := range map[string]io.Reader{
				"glued":        bytes.NewReader(stream),
				"byte by byte": iotest.OneByteReader(bytes.NewReader(stream)),
				"halved":       iotest.HalfReader(bytes.NewReader(stream)),
				"end at once":  iotest.DataErrReader(bytes.NewReader(stream)),
			} {
				got, err := readAll(t, r)
				if err != io.EOF || !slices.Equal(got, want) {
					t.Errorf("%s: got %d packets, %v, want %d", how, len(got), err, len(want))
				}
			}
		})
	}
}

// The seed panicked on these before anyone had authenticated.
func TestTCPLengthBelowHeaderIsRefused(t *testing.T) {
	for name, header := range map[string]string{
		"0":              "v1\x00\x00",
		"3":              "v1\x00\x03",
		"header only":    "v1\x00\x04",
		"-1":             "v1\xff\xff",
		"most negative":  "v1\x80\x00",
		"40000, wrapped": "v1\x9c\x44",
		"wrong magic":    "v2\x00\x05",
		"HTTP":           "GET / HTTP/1.1\r\n\r\n",
		"TLS":            "\x16\x03\x01\x02\x00",
	} {
		t.Run(name, func(t *testing.T) {
			p := NewPacketReader(io.MultiReader(bytes.NewReader(packet(t, "ok")), strings.NewReader(header), bytes.NewReader(packet(t, "after"))))
			if got, err := p.Next(); err != nil || string(got) != "ok" {
				t.Fatalf("before: got %q, %v", got, err)
			}
			for range 2 { // the place of the next packet is lost for good
				var e *contract.Error
				if got, err := p.Next(); !errors.As(err, &e) || e.Code != contract.BadRequest {
					t.Errorf("got %q, %v, want %s", got, err, contract.BadRequest)
				}
			}
		})
	}
}

// The seed wrote a length that had wrapped, and clients lost their place in the stream.
func TestTCPBodyNeverWraps(t *testing.T) {
	for _, c := range []struct {
		payload int
		want    contract.Code
	}{
		{0, contract.BadRequest},
		{1, ""},
		{MaxTCPPacket - TCPHeader, ""},
		{MaxTCPPacket - TCPHeader + 1, contract.TooLarge},
		{40_000, contract.TooLarge},
		{1<<16 + 1, contract.TooLarge},
	} {
		dst := []byte("before")
		got, err := AppendTCP(dst, bytes.Repeat([]byte("m"), c.payload))
		if code := contract.CodeOf(err); code != c.want {
			t.Errorf("%d bytes: got %v, want %q", c.payload, err, c.want)
		}
		if want := len(dst); err != nil && len(got) != want {
			t.Errorf("%d bytes: refused, but %d bytes appended", c.payload, len(got)-want)
		}
	}
}

func TestPacketReaderEnds(t *testing.T) {
	whole := packet(t, `{"op":10}`)
	for n := range len(whole) {
		want := io.ErrUnexpectedEOF
		if n == 0 {
			want = io.EOF
		}
		got, err := readAll(t, io.MultiReader(bytes.NewReader(whole), bytes.NewReader(whole[:n])))
		if err != want || len(got) != 1 {
			t.Errorf("%d bytes of a packet: got %d packets, %v, want 1, %v", n, len(got), err, want)
		}
	}
}

// A deadline that passes inside a packet loses nothing: the next call goes on.
func TestPacketReaderGoesOnAfterDeadline(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	defer server.Close()
	p := NewPacketReader(server)
	payload := strings.Repeat("m", 1000)
	whole := packet(t, payload)
	for _, part := range [][]byte{whole[:2], whole[2:600]} {
		written := make(chan error, 1)
		go func() {
			_, err := client.Write(part) // over when the reader has all of it
			written <- errors.Join(err, server.SetReadDeadline(time.Unix(1, 0)))
		}()
		if _, err := p.Next(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("got %v, want %v", err, os.ErrDeadlineExceeded)
		}
		if err := errors.Join(<-written, server.SetReadDeadline(time.Time{})); err != nil {
			t.Fatal(err)
		}
	}
	written := make(chan error, 1)
	go func() {
		_, err := client.Write(whole[600:])
		written <- err
	}()
	got, err := p.Next()
	if err != nil || string(got) != payload {
		t.Errorf("got %d bytes, %v, want %d", len(got), err, len(payload))
	}
	if err := <-written; err != nil {
		t.Error(err)
	}
}

// bufferSpy notes how large the buffer was that each read was given room in.
type bufferSpy struct {
	src    io.Reader
	reader *PacketReader
	sizes  []int
}

func (s *bufferSpy) Read(b []byte) (int, error) {
	s.sizes = append(s.sizes, len(s.reader.buf))
	return s.src.Read(b)
}

// An idle connection costs little, also after a large packet.
func TestPacketReaderGivesLargeBufferBack(t *testing.T) {
	large := packet(t, strings.Repeat("m", 30_000))
	spy := &bufferSpy{src: bytes.NewReader(large)}
	spy.reader = NewPacketReader(spy)
	if _, err := spy.reader.Next(); err != nil {
		t.Fatal(err)
	}
	if _, err := spy.reader.Next(); err != io.EOF {
		t.Fatal(err)
	}
	if want := []int{smallBuffer, len(large), smallBuffer}; !slices.Equal(spy.sizes, want) || smallBuffer > 512 {
		t.Errorf("reads with buffers of %v, want %v", spy.sizes, want)
	}
}

func TestPacketReaderDoesNotAllocate(t *testing.T) {
	stream := bytes.Repeat(packet(t, `{"op":10}`), 2000)
	p := NewPacketReader(bytes.NewReader(stream))
	if n := testing.AllocsPerRun(1000, func() {
		if _, err := p.Next(); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("got %v allocations a packet, want 0", n)
	}
}
