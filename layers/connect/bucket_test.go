package connect

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace/noop"
	"pgregory.net/rapid"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/testclient"
)

func soleBucket() *bucket {
	return newBucket(0, newMetrics(prometheus.NewRegistry(), 1).buckets[0], noop.NewTracerProvider().Tracer(""))
}

// TestBucketModel does to a bucket and to plain sets whatever rapid thinks of, and compares after each step.
func TestBucketModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := soleBucket()
		channels := make([]*channel, 8)
		for i := range channels {
			channels[i] = &channel{number: uint64(i + 1), who: &who{user: contract.UserID(i%3 + 1)}, bucket: b}
		}
		inside := make(map[*channel]map[contract.RoomID]bool) // of the channels that are in the bucket
		aChannel := rapid.SampledFrom(channels)
		aRoom := rapid.Map(rapid.IntRange(1, 3), func(n int) contract.RoomID { return contract.RoomID(n) })
		one := func(t *rapid.T) *channel {
			c := aChannel.Draw(t, "channel")
			if inside[c] == nil {
				b.add(c)
				inside[c] = make(map[contract.RoomID]bool)
			}
			return c
		}
		t.Repeat(map[string]func(*rapid.T){
			"join": func(t *rapid.T) {
				c, room := one(t), aRoom.Draw(t, "room")
				if member, rooms := b.prepare(c, room); member != inside[c][room] || rooms != len(inside[c]) {
					t.Fatalf("prepare: got %v, %d, want %v, %d", member, rooms, inside[c][room], len(inside[c]))
				}
				if got, want := b.join(c, room), !inside[c][room]; got != want {
					t.Fatalf("join: got %v, want %v", got, want)
				}
				inside[c][room] = true
			},
			"leave": func(t *rapid.T) {
				c, room := one(t), aRoom.Draw(t, "room")
				if got, want := b.leave(c, room), inside[c][room]; got != want {
					t.Fatalf("leave: got %v, want %v", got, want)
				}
				delete(inside[c], room)
			},
			"leave between prepare and join": func(t *rapid.T) {
				c, room := one(t), aRoom.Draw(t, "room")
				b.prepare(c, room)
				b.leave(c, room)
				delete(inside[c], room)
				if b.join(c, room) {
					t.Fatal("joined after having left")
				}
			},
			"remove": func(t *rapid.T) {
				c := one(t)
				got := b.remove(c)
				slices.Sort(got)
				if want := slices.Sorted(maps.Keys(inside[c])); !slices.Equal(got, want) {
					t.Fatalf("remove: got %v, want %v", got, want)
				}
				delete(inside, c)
			},
			"": func(t *rapid.T) { compareBucket(t, b, inside) },
		})
	})
}

// compareBucket compares what a push would reach, and that nothing else is kept.
func compareBucket(t *rapid.T, b *bucket, inside map[*channel]map[contract.RoomID]bool) {
	numbers := func(channels []*channel) []uint64 {
		var all []uint64
		for _, c := range channels {
			all = append(all, c.number)
		}
		slices.Sort(all)
		return all
	}
	users, rooms := make(map[contract.UserID][]*channel), make(map[contract.RoomID][]*channel)
	for c, in := range inside {
		users[c.who.user] = append(users[c.who.user], c)
		for room := range in {
			rooms[room] = append(rooms[room], c)
		}
	}
	if len(b.users) != len(users) || len(b.rooms) != len(rooms) || len(b.channels) != len(inside) {
		t.Fatalf("got %d users, %d rooms, %d channels, want %d, %d, %d",
			len(b.users), len(b.rooms), len(b.channels), len(users), len(rooms), len(inside))
	}
	for user, want := range users {
		if got, _ := b.receivers(nil, &work{user: user}); !slices.Equal(numbers(got), numbers(want)) {
			t.Fatalf("user %d: got %v, want %v", user, numbers(got), numbers(want))
		}
	}
	for room, want := range rooms {
		d := &delivery{Delivery: &contract.Delivery{Room: room}}
		if got, _ := b.receivers(nil, &work{delivery: d}); !slices.Equal(numbers(got), numbers(want)) {
			t.Fatalf("room %d: got %v, want %v", room, numbers(got), numbers(want))
		}
	}
}

// TestRandomly lets connections of few users enter, leave, authenticate again and go, while every room is pushed to.
// Each connection sees each room in order, and in the end nobody is counted.
func TestRandomly(t *testing.T) {
	const people, steps, rooms = 12, 40, 3
	n := startNode(t, obliging(), nil)
	stop := make(chan struct{})
	var pushing, living sync.WaitGroup
	for room := contract.RoomID(1); room <= rooms; room++ {
		pushing.Go(func() {
			for seq := int64(1); ; seq++ {
				select {
				case <-stop:
					return
				default:
				}
				var batch []contract.Delivery // up to three, which go together
				for last := seq + seq%3; ; seq++ {
					batch = append(batch, note(contract.RoomConversation(room), seq, "x"))
					if seq == last {
						break
					}
				}
				if _, err := n.tryPush(batch...); err != nil {
					t.Errorf("push: %v", err)
					return
				}
			}
		})
	}
	for i := range people {
		living.Go(func() {
			if err := liveRandomly(n, i, steps, rooms); err != nil {
				t.Error(err)
			}
		})
	}
	living.Wait()
	close(stop)
	pushing.Wait()
	eventually(t, "nobody is counted", func() bool {
		users, rooms := n.present()
		return len(users)+len(rooms) == 0
	})
}

// liveRandomly connects again and again as one of few users and does random things.
func liveRandomly(n *testNode, i, steps, rooms int) error {
	random := rand.New(rand.NewPCG(uint64(i), 1))
	for life := 0; steps > 0; life++ {
		dial, addr := testclient.DialWebSocket, n.WebSocketAddr()
		if random.IntN(2) == 0 {
			dial, addr = testclient.DialTCP, n.TCPAddrs()[0]
		}
		c, err := dial(addr)
		if err != nil {
			return err
		}
		hello := object{"op": 6, "authToken": token(contract.UserID(i%4+1), i)}
		err = c.TrySend(hello)
		for range random.IntN(steps) + 1 {
			if steps--; err == nil {
				room := random.IntN(rooms) + 1
				switch random.IntN(4) {
				case 0:
					err = c.TrySend(object{"op": 16, "roomId": room})
				case 1:
					hello["roomId"] = room
					err = c.TrySend(hello)
				default:
					err = c.TrySend(object{"op": 15, "roomId": room})
				}
			}
		}
		c.Close()
		if err != nil {
			return fmt.Errorf("life %d of %d: %w", life, i, err)
		}
		for room := range rooms {
			if err := checkAscending(seqs(c, contract.RoomConversation(contract.RoomID(room+1)))); err != nil {
				return fmt.Errorf("life %d of %d, room %d: %w", life, i, room+1, err)
			}
		}
	}
	return nil
}

func checkAscending(got []int64) error {
	for i := 1; i < len(got); i++ {
		if got[i] <= got[i-1] {
			return fmt.Errorf("seq %d came after %d", got[i], got[i-1])
		}
	}
	return nil
}

// TestOrder pushes to users and rooms at once: each connection gets all of it, in the order pushed.
func TestOrder(t *testing.T) {
	const messages = 500
	n := startNode(t, obliging(), func(c *Connect) { c.cfg.QueueBytes = 64 << 20 })
	var conns []*testclient.Conn
	for i := range 6 {
		c := transports[i%len(transports)].dial(t, n)
		enter(t, c, hello(t, n, c, contract.UserID(i/2+2), i), 1)
		conns = append(conns, c)
	}
	for seq := int64(1); seq <= messages; seq++ {
		var batch []contract.Delivery
		for user := 2; user <= 4; user++ {
			batch = append(batch, note(contract.DirectConversation(1, contract.UserID(user)), seq, "private"))
		}
		got := n.push(t, append(batch, note("room:1", seq, "public"))...)
		if got.Receivers() != 2*len(conns) || got.Slow+got.Gone != 0 {
			t.Fatalf("seq %d: got %+v, want all of %d frames delivered", seq, got, 2*len(conns))
		}
	}
	for i, c := range conns {
		own := contract.DirectConversation(1, contract.UserID(i/2+2))
		for _, conversation := range []contract.Conversation{"room:1", own} {
			eventually(t, "all messages", func() bool { return len(seqs(c, conversation)) >= messages })
			if got := seqs(c, conversation); !slices.Equal(got, upTo(1, messages)) {
				t.Errorf("connection %d, %s: got %v", i, conversation, got)
			}
		}
	}
}

// TestMembership has one connection enter one room in every way: it is a member once.
func TestMembership(t *testing.T) {
	for _, tr := range transports {
		t.Run(tr.name, func(t *testing.T) {
			n := startNode(t, obliging(), nil)
			c := tr.dial(t, n)
			ch := hello(t, n, c, 1, 1)
			for range 3 {
				c.Send(t, object{"op": 6, "authToken": token(1, 1), "roomId": 1})
				c.Send(t, object{"op": 15, "roomId": 1})
			}
			settle(t, c)
			if got := n.push(t, note("room:1", 1, "once")); got.Receivers() != 1 {
				t.Errorf("got %+v, want one receiver", got)
			}
			if _, rooms := n.present(); rooms[place{1, 1}] != 1 {
				t.Errorf("counted %d times, want once", rooms[place{1, 1}])
			}
			if got := ch.roomIDs(); !slices.Equal(got, []contract.RoomID{1}) {
				t.Errorf("in %v, want room 1 alone", got)
			}
			c.Send(t, object{"op": 16, "roomId": 1})
			settle(t, c)
			if got := n.push(t, note("room:1", 2, "never")); got.Receivers() != 0 {
				t.Errorf("after leaving: got %+v, want no receiver", got)
			}
		})
	}
}

// TestRightChannelRemoved closes an old connection of a user after a new one has come: the new one stays.
func TestRightChannelRemoved(t *testing.T) {
	n := startNode(t, obliging(), nil)
	var conns []*testclient.Conn
	for i := range 3 {
		c := transports[i%len(transports)].dial(t, n)
		enter(t, c, hello(t, n, c, 2, i), 1)
		conns = append(conns, c)
	}
	for left := len(conns) - 1; left > 0; left-- {
		conns[len(conns)-1-left].Close()
		eventually(t, "the closed one is gone", func() bool { return len(n.bucketOf(2).ofUser(2)) == left })
		text := fmt.Sprintf("to %d", left)
		if got := n.push(t, note("room:1", 0, text), note("dm:1:2", 0, text)); got.Written != 2*left {
			t.Errorf("got %+v, want %d written", got, 2*left)
		}
		for _, c := range conns[len(conns)-left:] {
			c.AwaitText(t, text)
		}
		want := map[place]bool{{user: 2}: true, {2, 1}: true}
		if got := storedRoutes(t, n.routes, n.self); !maps.Equal(got, want) {
			t.Errorf("routes: got %v, want %v", got, want)
		}
	}
}

// TestBucketMetrics reads what a bucket counts about its lock and its size.
func TestBucketMetrics(t *testing.T) {
	n := startNode(t, obliging(), nil)
	c := testclient.TCP(t, n.TCPAddrs()[0])
	enter(t, c, hello(t, n, c, 1, 1), 1)
	for name, want := range map[string]float64{"gochat_bucket_channels": 1, "gochat_bucket_rooms": 1} {
		if got := n.metric(t, name); got != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
	if n.metric(t, "gochat_bucket_lock_acquisitions_total") == 0 || n.metric(t, "gochat_bucket_lock_hold_seconds") == 0 {
		t.Error("the lock was taken and not counted")
	}
}
