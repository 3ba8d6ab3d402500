package discovery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// probeEvery is how often a quiet watch is asked for a sign of life; after probeGrace without one it is left.
	probeEvery = time.Second
	probeGrace = 3 * time.Second
)

// entry is one key of a folder.
type entry struct {
	name     string // the key without the folder
	value    string
	created  int64 // revision
	modified int64 // revision
	lease    int64
}

func byName(e entry, name string) int { return strings.Compare(e.name, name) }

// mirror is a live copy of one folder of etcd.
//
// It opens a watch from now, then reads the folder, then applies what the watch brings beyond the revision read.
// In this order nothing can fall between the two, no history is asked for, so that compaction is no matter, and
// whatever ends the watch leads to a full read. The watch is etcd's bare stream: the client library's own watcher
// hides a lost connection and goes on from the last revision, which an etcd that has lost its data reaches again
// only much later, and it would be silent until then. The cluster id does not tell such an etcd from the former
// one: it is derived from the configuration.
type mirror struct {
	c      *Client
	folder string
	label  string // of metrics and log

	mu      sync.Mutex
	entries []entry // sorted by name; replaced, never changed in place
	rev     int64   // everything up to this revision has been seen
	live    bool    // read, and the watch has not been lost since
	changes broadcast
}

// changed is closed when the entries or live have changed since the call.
func (m *mirror) changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changes.next()
}

func (m *mirror) snapshot() (entries []entry, rev int64, live bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.entries, m.rev, m.live
}

func (m *mirror) find(name string) (e entry, found bool, rev int64) {
	entries, rev, _ := m.snapshot()
	i, found := slices.BinarySearchFunc(entries, name, byName)
	if found {
		e = entries[i]
	}
	return e, found, rev
}

// run follows etcd until ctx ends.
func (m *mirror) run(ctx context.Context) {
	var pause backoff
	quiet := false // one line in the log for each outage
	for ctx.Err() == nil {
		err := m.follow(ctx)
		m.c.auth.forget()
		if m.lose() {
			pause.reset()
			quiet = false
		}
		if ctx.Err() != nil {
			return
		}
		if !quiet {
			m.c.log.WarnContext(ctx, "watch of etcd lost, the last picture stays", "picture", m.label, "err", err)
			quiet = true
		}
		sleep(ctx, pause.next())
	}
}

// lose reports whether the watch had been live.
func (m *mirror) lose() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	was := m.live
	m.live = false
	if was {
		m.changes.tell()
	}
	return was
}

// follow keeps the picture live for as long as one stream lasts. It always returns an error.
func (m *mirror) follow(ctx context.Context) error {
	var reader sync.WaitGroup
	defer reader.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	stream, err := pb.NewWatchClient(m.c.etcd.ActiveConnection()).Watch(ctx)
	if err != nil {
		return fmt.Errorf("open watch: %w", err)
	}
	responses, lost := make(chan *pb.WatchResponse), make(chan error, 1)
	reader.Go(func() {
		for {
			r, err := stream.Recv()
			if err != nil {
				lost <- err
				return
			}
			select {
			case responses <- r:
			case <-ctx.Done():
				return
			}
		}
	})
	err = stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
		Key:      []byte(m.folder),
		RangeEnd: []byte(clientv3.GetPrefixRangeEnd(m.folder)),
	}}})
	if err != nil {
		return fmt.Errorf("create watch: %w", err)
	}

	probe := time.NewTicker(probeEvery)
	defer probe.Stop()
	heard := time.Now()
	for {
		select {
		case r := <-responses:
			heard = time.Now()
			switch {
			case r.Canceled:
				return fmt.Errorf("watch cancelled at compact revision %d: %s", r.CompactRevision, r.CancelReason)
			case r.Created:
				if err := m.read(ctx); err != nil {
					return err
				}
				heard = time.Now()
			default:
				m.apply(r.Events)
			}
		case err := <-lost:
			return fmt.Errorf("watch: %w", err)
		case <-probe.C:
			if time.Since(heard) > probeGrace {
				return errors.New("watch: no sign of life")
			}
			err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
			if err != nil {
				return fmt.Errorf("probe watch: %w", err)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// read replaces the picture by what etcd has.
func (m *mirror) read(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	got, err := m.c.etcd.Get(ctx, m.folder, clientv3.WithPrefix())
	if err != nil {
		return fmt.Errorf("read %s: %w", m.folder, err)
	}
	entries := make([]entry, len(got.Kvs))
	for i, kv := range got.Kvs { // in the order of their keys
		entries[i] = m.entry(kv)
	}
	m.mu.Lock()
	if !slices.Equal(m.entries, entries) {
		m.entries = entries
	}
	m.rev, m.live = got.Header.Revision, true
	m.changes.tell()
	m.mu.Unlock()

	m.c.metrics.resyncs.WithLabelValues(m.label).Inc()
	select {
	case m.c.resynced <- struct{}{}:
	default: // one is waiting already
	}
	return nil
}

func (m *mirror) entry(kv *mvccpb.KeyValue) entry {
	return entry{
		name:     strings.TrimPrefix(string(kv.Key), m.folder),
		value:    string(kv.Value),
		created:  kv.CreateRevision,
		modified: kv.ModRevision,
		lease:    kv.Lease,
	}
}

func (m *mirror) apply(events []*mvccpb.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.rev
	var entries []entry
	for _, ev := range events {
		if ev.Kv.ModRevision <= before {
			continue // the read was later than the watch and has it
		}
		if entries == nil {
			entries = slices.Clone(m.entries)
		}
		e := m.entry(ev.Kv)
		i, found := slices.BinarySearchFunc(entries, e.name, byName)
		switch {
		case ev.Type == mvccpb.Event_DELETE && found:
			entries = slices.Delete(entries, i, i+1)
		case ev.Type == mvccpb.Event_DELETE:
		case found:
			entries[i] = e
		default:
			entries = slices.Insert(entries, i, e)
		}
		m.rev = ev.Kv.ModRevision
	}
	if entries != nil {
		m.entries = entries
		m.changes.tell()
	}
}
