package record

import (
	"sync"
	"time"

	"gochat/layers/internal/contract"
	"gochat/observability"
)

// Logic is what one logic node has done with its latest messages. Its methods may be called from any goroutine.
type Logic struct {
	mu   sync.Mutex
	ring ring[logicRecord]
}

type logicRecord struct {
	accepted, committed         int64 // unix microseconds, 0 is never
	firstPublished, lastPublish int64
	batch                       uint32
	published                   uint32
	by                          publishedByte
}

type publishedByte uint8

const (
	byNobody publishedByte = iota
	atOnce
	fromBox
	bySweep
)

// NewLogic begins to know now.
func NewLogic(cfg Config, tel observability.Telemetry) *Logic {
	l := &Logic{ring: newRing(cfg, time.Now(), func(*logicRecord) {})}
	newAge(tel.Metrics, &l.mu, l.ring.age)
	return l
}

// Committed notes that a message was stored, in a commit of so many.
func (l *Logic) Committed(id contract.MessageID, accepted, committed time.Time, batch int) {
	now := committed.UnixMicro()
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.ring.enter(id, now); r != nil {
		r.accepted, r.committed, r.batch = accepted.UnixMicro(), now, uint32(batch)
	}
}

// Published notes that the queue has the message.
func (l *Logic) Published(id contract.MessageID, at time.Time, by contract.PublishedBy) {
	now := at.UnixMicro()
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.ring.enter(id, now)
	if r == nil {
		return
	}
	if r.published == 0 {
		r.firstPublished = now
	}
	r.lastPublish = now
	r.published++
	switch by {
	case contract.PublishedFromBox:
		r.by = fromBox
	case contract.PublishedBySweep:
		r.by = bySweep
	default:
		r.by = atOnce
	}
}

// Find answers the message's record, nil if there is none, and from when on every message is on record; zero if nothing
// is kept.
func (l *Logic) Find(id contract.MessageID) (*contract.LogicRecord, time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	since := l.ring.covers(time.Now().UnixMicro())
	r := l.ring.find(id)
	if r == nil {
		return nil, since
	}
	return &contract.LogicRecord{
		AcceptedAt: moment(r.accepted), CommittedAt: moment(r.committed), Batch: int(r.batch),
		FirstPublishedAt: moment(r.firstPublished), LastPublishedAt: moment(r.lastPublish),
		Published: int(r.published), By: r.by.word(),
	}, since
}

func (b publishedByte) word() contract.PublishedBy {
	switch b {
	case atOnce:
		return contract.PublishedAtOnce
	case fromBox:
		return contract.PublishedFromBox
	case bySweep:
		return contract.PublishedBySweep
	default:
		return ""
	}
}
