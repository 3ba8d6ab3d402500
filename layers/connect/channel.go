package connect

import (
	"errors"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"gochat/layers/connect/wire"
	"gochat/layers/internal/contract"
)

// transport is how a connection frames its JSON.
type transport uint8

const (
	webSocket transport = iota
	tcp
	deflated // a websocket whose two sides may compress messages
)

// String is a metric label.
func (t transport) String() string { return [...]string{"websocket", "tcp", "websocket"}[t] }

// frame is one client frame as it goes over each transport, made once a node and shared by every channel.
type frame [deflated + 1][]byte

// newFrame is the JSON as it goes over each transport, compressed over none.
func newFrame(json []byte) frame {
	text := webSocket.frame(json)
	return frame{webSocket: text, tcp: tcp.frame(json), deflated: text}
}

// frame puts the transport's header before the JSON.
func (t transport) frame(json []byte) []byte {
	if t != tcp {
		return wire.AppendText(make([]byte, 0, len(json)+10), json)
	}
	packet, err := wire.AppendTCP(make([]byte, 0, len(json)+wire.TCPHeader), json)
	if err != nil {
		return nil // too long for a packet: logic keeps every frame below that bound
	}
	return packet
}

// lastFrame is why a connection ends: an error frame, and over websocket the close frame with the code's number.
func (t transport) lastFrame(code contract.Code, closeCode int, message string, comeBack time.Duration) []byte {
	var last []byte
	if code == contract.Unavailable {
		last = t.frame(wire.AppendGoingAway(nil, comeBack))
	}
	last = append(last, t.frame(wire.AppendError(nil, "", "", &contract.Error{Code: code, Message: message}))...)
	if t != tcp {
		last = wire.AppendControl(last, wire.OpcodeClose, wire.ClosePayload(closeCode, string(code)))
	}
	return last
}

// outcome is what became of a frame on one channel.
type outcome uint8

const (
	written outcome = iota
	queued
	slow
	gone
	lost // missed, and cannot be fetched: no frame of it was made
	outcomes
)

// String is a metric label.
func (o outcome) String() string { return [...]string{"written", "queued", "slow", "gone", "lost"}[o] }

// who is set once, when the connection authenticates.
type who struct {
	user    contract.UserID
	name    string
	session contract.SessionID
}

// channel is one connection.
type channel struct {
	// What every push looks at stands together: memory comes by 64 bytes.
	mu          sync.Mutex                       // guards this group and the next, but for number to transport, which never change
	replays     map[contract.Conversation]replay // nil unless there is one, or withholdAll
	withholdAll bool                             // until it is known what is unread
	ended       bool                             // no frame goes out any more but what is queued
	writing     bool                             // the writer goroutine lives
	begun       bool                             // the first of the queue is the rest of a frame, the beginning of which is in the socket
	number      uint64
	fd          int // of conn
	transport   transport

	queue   [][]byte      // frames that wait for the writer goroutine
	queued  int           // bytes in queue and in the writer's hands
	drained chan struct{} // closed when the queue has become short; nil if nobody waits

	srv  *Connect
	conn net.Conn

	lastRead      atomic.Int64 // seconds since the node began
	begunAt       atomic.Int64 // the wait for the rest of the message of which a part has come; 0 between messages
	endingAt      atomic.Int64 // the latest wait for the connection to be gone
	authenticated atomic.Bool
	asked         atomic.Bool // a token was given, whatever became of it
	parked        atomic.Bool // nobody reads: the poller waits
	cut           atomic.Bool // whatever still comes, the connection is over

	partial *partial // the reader's alone; nil between messages

	// Set by the reader before the channel is put into its bucket; read by others only through the bucket.
	who         *who
	bucket      *bucket
	authRoom    contract.RoomID // the room entered by an auth frame; the reader's alone
	memberships []membership    // the bucket's
	entering    contract.RoomID // the bucket's: the room that is about to be joined, unless it is left before
}

// id is how deliveries name the connection that must not get them.
func (c *channel) id() contract.ConnID {
	return contract.ConnID(c.srv.instance + strconv.FormatUint(c.number, 10))
}

// offer gives bytes to the kernel without waiting, and answers how many it took. An error means that the connection is
// broken. It is called with mu held and ended false: until then nobody closes the socket, so that fd is its own.
func (c *channel) offer(b []byte) (int, error) {
	for {
		n, err := syscall.Write(c.fd, b)
		switch {
		case err == nil:
			return n, nil
		case errors.Is(err, syscall.EAGAIN):
			return 0, nil
		case !errors.Is(err, syscall.EINTR):
			return 0, err
		}
	}
}

// pushOne sends one frame of a conversation. A frame with a seq is withheld while its conversation is replayed to
// this channel: the replay will come to it. One that a replay has sent already counts as written. It is called with mu
// held.
func (c *channel) pushOne(d *delivery) outcome {
	if c.ended {
		return gone
	}
	if d.Seq > 0 {
		if o, is := c.withheld(d.Conversation, d.Seq); is {
			return o
		}
	}
	return c.write(d.frame[c.transport])
}

// send sends a frame that answers this connection.
func (c *channel) send(json []byte) { c.sendRaw(c.transport.frame(json)) }

// sendRaw sends bytes that are framed already.
func (c *channel) sendRaw(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		c.write(b)
	}
}

// write is called with mu held and ended false.
func (c *channel) write(b []byte) outcome {
	if len(b) == 0 {
		return written
	}
	if !c.writing { // else it would overtake what waits
		n, err := c.offer(b)
		switch {
		case err != nil:
			c.breakOff()
			return gone
		case n == len(b):
			return written
		case n > 0:
			c.enqueueRest(b[n:])
			return queued
		}
	}
	if c.queued+len(b) > c.srv.cfg.QueueBytes {
		c.endLocked(contract.SlowConsumer, wire.CloseCode(contract.SlowConsumer), "too much waits for this connection")
		return slow
	}
	c.enqueue(b)
	return queued
}

// enqueueRest has the rest of a frame that has begun go out whatever the bound says. It is called with mu held.
func (c *channel) enqueueRest(b []byte) {
	c.begun = true
	c.enqueue(b)
}

// enqueue is called with mu held.
func (c *channel) enqueue(b []byte) {
	c.queue = append(c.queue, b)
	c.countQueued(len(b))
	if !c.writing {
		c.writing = true
		c.srv.goroutines.Go(c.writeQueue)
	}
}

// countQueued is called with mu held.
func (c *channel) countQueued(bytes int) {
	c.queued += bytes
	c.srv.m.queueBytes.Add(float64(bytes))
	if c.queued < c.srv.cfg.QueueBytes/4 {
		c.signalDrained()
	}
}

// timeouts are the same for every connection.
type timeouts struct {
	write  time.Duration // for a peer to take maxWrite bytes
	linger time.Duration // twice that for the last frames, and as long again for the peer to close its side
	packet time.Duration // for the rest of a packet or message that has begun: half of one holds memory
}

// maxWrite bounds one write of what waits, so that a peer that reads slowly, but reads, has time for it.
const maxWrite = 64 << 10

// takeQueue takes the next frames to write together. It is called with mu held.
func (c *channel) takeQueue() (batch net.Buffers, bytes int) {
	n := 0
	for n < len(c.queue) && (n == 0 || bytes+len(c.queue[n]) <= maxWrite) {
		bytes += len(c.queue[n])
		n++
	}
	batch, c.queue, c.begun = c.queue[:n:n], c.queue[n:], false
	return batch, bytes
}

// writeQueue writes what waits, as much in one call as may be, until nothing does. After the end it closes the socket
// for writing.
func (c *channel) writeQueue() {
	for {
		c.mu.Lock()
		batch, bytes := c.takeQueue()
		if len(batch) == 0 {
			c.queue, c.writing = nil, false
			if c.ended {
				c.closeWrite()
			}
			c.mu.Unlock()
			return
		}
		timeout := c.srv.timeouts.write
		if c.ended {
			timeout = c.srv.timeouts.linger
		}
		_ = c.conn.SetWriteDeadline(time.Now().Add(timeout))
		c.mu.Unlock()

		c.srv.m.writeFrames.Observe(float64(len(batch)))
		_, err := batch.WriteTo(c.conn)

		c.mu.Lock()
		c.countQueued(-bytes)
		if err != nil {
			if c.ended && !c.cut.Load() && errors.Is(err, os.ErrDeadlineExceeded) {
				c.srv.m.forced.Inc()
			}
			c.writing = false
			c.breakOff()
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
	}
}

// breakOff ends a connection that does not take bytes any more. It is called with mu held.
func (c *channel) breakOff() {
	c.ended = true
	c.dropQueue(0)
	c.signalDrained()
	c.shut()
}

// shut has the reader find the end of the connection, and clean up: nobody else closes the socket. What a peer sends all the
// same is still there to be read, without end.
func (c *channel) shut() {
	c.cut.Store(true)
	if socket, ok := c.conn.(*net.TCPConn); ok {
		_, _ = socket.CloseRead(), socket.CloseWrite() // an error means that the peer has ended it
	}
}

// end tells the client why, closes the connection with the code's close code, and lets the reader clean up. What
// waits for the socket goes out first, except for a slow consumer, who gets only what has begun.
func (c *channel) end(code contract.Code, message string) {
	c.endWith(code, wire.CloseCode(code), message)
}

// endWith is end with another close code than the code's own.
func (c *channel) endWith(code contract.Code, closeCode int, message string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		c.endLocked(code, closeCode, message)
	}
}

func (c *channel) endLocked(code contract.Code, closeCode int, message string) {
	c.ended = true
	c.signalDrained()
	c.srv.m.closes.WithLabelValues(string(code)).Inc()
	if code == contract.SlowConsumer {
		if c.begun {
			c.dropQueue(1)
		} else {
			c.dropQueue(0)
		}
	}
	c.endingAt.Store(c.srv.ending.add(c)) // then it is shut, even if the writer hangs in a write
	c.enqueue(c.transport.lastFrame(code, closeCode, message, c.srv.comeBack(c.number)))
}

// dropQueue drops what waits but the first keep. It is called with mu held.
func (c *channel) dropQueue(keep int) {
	for _, b := range c.queue[min(keep, len(c.queue)):] {
		c.countQueued(-len(b))
	}
	c.queue = c.queue[:min(keep, len(c.queue))]
}

// closeWrite sends the end of the stream after what was written, so that the peer reads all of it. The reader reads on until
// the peer closes too, since closing a socket with unread bytes would take back the last frames.
func (c *channel) closeWrite() {
	if half, ok := c.conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	c.endingAt.Store(c.srv.ending.add(c)) // as long again for the peer
}

// isEnded reports whether the connection is on its way out.
func (c *channel) isEnded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended
}

// signalDrained is called with mu held.
func (c *channel) signalDrained() {
	if c.drained != nil {
		close(c.drained)
		c.drained = nil
	}
}

// waitDrained waits until little waits for the socket, or the connection has ended.
func (c *channel) waitDrained() {
	c.mu.Lock()
	if c.ended || !c.writing || c.queued < c.srv.cfg.QueueBytes/4 {
		c.mu.Unlock()
		return
	}
	if c.drained == nil {
		c.drained = make(chan struct{})
	}
	drained := c.drained
	c.mu.Unlock()
	<-drained
}
