package bench

import (
	"math/bits"
	"time"

	hdrhistogram "github.com/HdrHistogram/hdrhistogram-go"
)

// bitset has a bit for each message of a group.
type bitset []uint64

func newBitset(n int) bitset { return make(bitset, (n+63)/64) }

func (b bitset) has(i int) bool { return b[i/64]&(1<<(i%64)) != 0 }

// add sets the bit and reports whether it was not set before.
func (b bitset) add(i int) bool {
	word, bit := &b[i/64], uint64(1)<<(i%64)
	was := *word&bit != 0
	*word |= bit
	return !was
}

// distribution is of times, from a microsecond to ten minutes; three digits are exact.
type distribution struct{ *hdrhistogram.Histogram }

const longestTime = 10 * time.Minute

func newDistribution() distribution {
	return distribution{hdrhistogram.New(int64(time.Microsecond), int64(longestTime), 3)}
}

func (d distribution) record(t time.Duration) {
	_ = d.RecordValue(int64(min(max(t, 0), longestTime))) // within its range
}

// talk is what is known of the messages of one group.
type talk struct {
	receivers int // that every message of the group goes to
	sent      int // the next number
	acked     bitset
	refused   bitset
}

// inbox is what a receiver has got of its group.
type inbox struct {
	group int // -1 for nobody's
	own   int // the group in which the connection alone sends, -1 for none
	got   bitset
}

// meter counts the messages of one phase.
type meter struct {
	run      uint32
	prefix   []byte
	groups   []talk
	inboxes  []*inbox
	capacity int // messages of a group

	sent, acked, refused                       int64
	expected, received, duplicated, unexpected int64
	echoed                                     int64
	delivery, ack, lag                         distribution
	last                                       time.Duration // when the last delivery came
	sample                                     []byte        // the first frame delivered, as it came
}

func newMeter(run uint32, groups, capacity int) *meter {
	m := &meter{
		run: run, prefix: marker{run: run}.prefix(), groups: make([]talk, groups), capacity: capacity,
		delivery: newDistribution(), ack: newDistribution(), lag: newDistribution(),
	}
	for i := range m.groups {
		m.groups[i].acked, m.groups[i].refused = newBitset(capacity), newBitset(capacity)
	}
	return m
}

// receive makes the inbox one of the group's receivers.
func (m *meter) receive(in *inbox, group int) {
	in.group, in.got = group, newBitset(m.capacity)
	m.groups[group].receivers++
	m.inboxes = append(m.inboxes, in)
}

// send counts a message that has been sent as the next of the group, late after it was due.
func (m *meter) send(group int, late time.Duration) {
	g := &m.groups[group]
	g.sent++
	m.sent++
	m.expected += int64(g.receivers)
	m.lag.record(late)
}

// known reports whether the marker is of a message that was sent.
func (m *meter) known(k marker) bool {
	return k.group < len(m.groups) && k.number < m.groups[k.group].sent
}

// deliver counts what a receiver has got.
func (m *meter) deliver(in *inbox, k marker, now time.Duration) {
	switch {
	case m.known(k) && k.group == in.own:
		m.echoed++
	case !m.known(k) || k.group != in.group || m.groups[k.group].refused.has(k.number):
		m.unexpected++
	case !in.got.add(k.number):
		m.duplicated++
	default:
		m.received++
		m.delivery.record(now - time.Duration(k.due))
		m.last = now
	}
}

// acknowledge counts what a sender was told is stored.
func (m *meter) acknowledge(k marker, now time.Duration) {
	if m.known(k) && m.groups[k.group].acked.add(k.number) {
		m.acked++
		m.ack.record(now - time.Duration(k.due))
	}
}

// refuse counts what a sender was told is not stored: nobody is to get it.
func (m *meter) refuse(k marker) {
	if m.known(k) && m.groups[k.group].refused.add(k.number) {
		m.refused++
		m.expected -= int64(m.groups[k.group].receivers)
	}
}

// settle goes through all bits, once, when nothing is awaited any more. It answers the deliveries of messages that were
// not refused and have not come; those that came before their message was refused have not been expected.
func (m *meter) settle() (lost int64) {
	for _, in := range m.inboxes {
		g := &m.groups[in.group]
		for i, got := range in.got {
			sent := ^uint64(0)
			if rest := g.sent - i*64; rest <= 0 {
				break
			} else if rest < 64 {
				sent = 1<<rest - 1
			}
			lost += int64(bits.OnesCount64(sent &^ g.refused[i] &^ got))
			denied := int64(bits.OnesCount64(got & g.refused[i]))
			m.received, m.unexpected = m.received-denied, m.unexpected+denied
		}
	}
	return lost
}
