package logic

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"gochat/layers/connect/wire"
	"gochat/layers/internal/contract"
)

// announcer tells rooms who is online: when asked to, and, gathered, when somebody came or went.
type announcer struct {
	presence Presence
	queue    *entrance
	nodes    Nodes
	m        *metrics
	log      *slog.Logger
	wake     chan struct{}

	mu    sync.Mutex
	dirty map[contract.RoomID]time.Time // rooms to be told, and not before when
	next  map[contract.RoomID]time.Time // rooms told lately, and when they may be told again
}

const (
	smallRoom     = 100                    // users up to which a room is told at once
	gatherSmall   = 100 * time.Millisecond // between two announcements to a small room
	gatherBig     = 2 * time.Second        // and to a bigger one, since each costs a frame a member
	announceLimit = 5 * time.Second        // deadline of one round
	forgetEvery   = 5 * time.Second        // how often dead lives are looked for when no node changes
)

func newAnnouncer(presence Presence, queue *entrance, nodes Nodes, m *metrics, log *slog.Logger) *announcer {
	return &announcer{
		presence: presence, queue: queue, nodes: nodes, m: m, log: log, wake: make(chan struct{}, 1),
		dirty: make(map[contract.RoomID]time.Time), next: make(map[contract.RoomID]time.Time),
	}
}

// changed has the rooms told soon. It never blocks.
func (a *announcer) changed(rooms []contract.RoomID) {
	now := time.Now()
	a.mu.Lock()
	for _, room := range rooms {
		if _, waits := a.dirty[room]; !waits {
			due := now.Add(gatherSmall / 2) // a join rarely comes alone
			if next := a.next[room]; next.After(due) {
				due = next
			}
			a.dirty[room] = due
		}
	}
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// run announces and forgets dead lives until ctx ends.
func (a *announcer) run(ctx context.Context) {
	var forgetting sync.WaitGroup
	forgetting.Go(func() { a.forgetDead(ctx) })
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-a.wake:
		case <-timer.C:
		case <-ctx.Done():
			forgetting.Wait() // the routes that it has just taken back are found by nobody else
			a.last(context.WithoutCancel(ctx))
			return
		}
		timer.Reset(a.round(ctx))
	}
}

// last announces what has been gathered: those who told of it consider it done.
func (a *announcer) last(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, announceLimit)
	defer cancel()
	a.mu.Lock()
	rooms := slices.Collect(maps.Keys(a.dirty))
	clear(a.dirty)
	a.mu.Unlock()
	for _, room := range rooms {
		if _, err := a.announceNames(ctx, room); err != nil {
			a.log.Warn("room not told who is online", "room", room, "err", err)
		}
	}
}

// round announces every room that is due and answers when the next one is.
func (a *announcer) round(ctx context.Context) time.Duration {
	ctx, cancel := context.WithTimeout(ctx, announceLimit)
	defer cancel()
	for _, room := range a.due() {
		count, err := a.announceNames(ctx, room)
		pause := gatherSmall
		if count > smallRoom || err != nil {
			pause = gatherBig
		}
		a.mu.Lock()
		a.next[room] = time.Now().Add(pause)
		a.mu.Unlock()
		if err != nil {
			if ctx.Err() == nil {
				a.log.Warn("room not told who is online", "room", room, "err", err)
			}
			a.changed([]contract.RoomID{room}) // once more, after the pause
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	now, wait := time.Now(), time.Minute
	for room, next := range a.next {
		if next.Before(now) {
			delete(a.next, room)
		}
	}
	for _, due := range a.dirty {
		wait = min(wait, max(due.Sub(now), time.Millisecond))
	}
	return wait
}

func (a *announcer) due() []contract.RoomID {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	var rooms []contract.RoomID
	for room, due := range a.dirty {
		if !due.After(now) {
			rooms = append(rooms, room)
			delete(a.dirty, room)
		}
	}
	return rooms
}

// online answers who is in the room by the nodes that live now.
func (a *announcer) online(ctx context.Context, room contract.RoomID) (*contract.OnlineReply, error) {
	live := func(ref contract.NodeRef) bool { return a.nodes.Alive(ctx, ref) }
	count, users, err := a.presence.Online(ctx, room, live, contract.MaxOnlineNames)
	if err != nil {
		return nil, fmt.Errorf("load who is online: %w", err)
	}
	return &contract.OnlineReply{Room: room, Count: count, Users: users}, nil
}

// announce pushes op 5, or without names op 4, to the room.
func (a *announcer) announce(ctx context.Context, room contract.RoomID, names bool) error {
	if names {
		_, err := a.announceNames(ctx, room)
		return err
	}
	online, err := a.online(ctx, room)
	if err != nil {
		return err
	}
	return a.push(ctx, room, wire.AppendCount(nil, room, online.Count))
}

func (a *announcer) announceNames(ctx context.Context, room contract.RoomID) (int, error) {
	online, err := a.online(ctx, room)
	if err != nil || online.Count == 0 {
		return 0, err // nobody is there to be told
	}
	return online.Count, a.push(ctx, room, wire.AppendRoomInfo(nil, room, online.Count, online.Users))
}

func (a *announcer) push(ctx context.Context, room contract.RoomID, frame []byte) error {
	d := contract.Delivery{Conversation: contract.RoomConversation(room), Room: room, Frame: frame}
	if err := a.queue.send(ctx, notice(ctx, d)); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	a.m.announcements.Inc()
	return nil
}

// forgetDead takes back the routes of connect nodes that have died and tells the rooms that lost somebody.
func (a *announcer) forgetDead(ctx context.Context) {
	tick := time.NewTicker(forgetEvery)
	defer tick.Stop()
	for {
		changed := a.nodes.Changed()
		if err := a.forgetRound(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn("routes of dead nodes not taken back", "err", err)
		}
		select {
		case <-changed:
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (a *announcer) forgetRound(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, announceLimit)
	defer cancel()
	lives, err := a.presence.Lives(ctx)
	if err != nil {
		return err
	}
	for _, ref := range lives {
		if a.nodes.Alive(ctx, ref) || ctx.Err() != nil {
			continue
		}
		rooms, err := a.presence.Forget(ctx, ref)
		a.changed(rooms)
		if err != nil {
			return err
		}
		a.log.Info("routes of a node that is gone taken back", "node", ref.String(), "rooms", len(rooms))
	}
	return nil
}
