package kafka_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"gochat/layers/internal/queue"
	"gochat/observability"
)

func TestAnotherNumberOfPartitionsIsRefused(t *testing.T) {
	b := start(t)
	must(t, b.CreateTopic(topic, partitions+1, nil))
	q := b.open(t)
	for name, err := range map[string]error{
		"Publish": q.Publish(t.Context(), items("k", "1")),
		"Consume": q.Consume(t.Context(), (&received{}).Handle),
		"Ping":    q.Ping(t.Context()),
	} {
		if err == nil || !strings.Contains(err.Error(), "has 5 partitions, queue.partitions is 4") {
			t.Errorf("%s: %v, want it to say how many partitions there are", name, err)
		}
	}
}

// The names and the form are what operators and other versions rely on.
func TestTopicLayout(t *testing.T) {
	b := start(t)
	q := b.open(t)
	item := queue.Item{Key: "room:1", Headers: map[string]string{"traceparent": "00-a-b-01", "a": ""}, Body: []byte("b")}
	must(t, q.Publish(t.Context(), []queue.Item{item}))
	for _, name := range []string{"gochat.deliveries", "gochat.deliveries.aside"} {
		if got := len(b.PartitionInfos(name)); got != partitions {
			t.Errorf("topic %s has %d partitions, want %d", name, got, partitions)
		}
	}
	r := b.record(t, topic, 3, 0)
	want := []kgo.RecordHeader{{Key: "a", Value: []byte{}}, {Key: "traceparent", Value: []byte("00-a-b-01")}}
	same := slices.EqualFunc(r.Headers, want, func(a, b kgo.RecordHeader) bool { return a.Key == b.Key && string(a.Value) == string(b.Value) })
	if string(r.Key) != "room:1" || string(r.Value) != "b" || !same {
		t.Errorf("record %q %q %v, want room:1, b, %v", r.Key, r.Value, r.Headers, want)
	}
}

// record waits for one record.
func (b *broker) record(t *testing.T, topic string, partition int32, offset int64) *kgo.Record {
	c, err := kgo.NewClient(kgo.SeedBrokers(b.ListenAddrs()...), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{
		topic: {partition: kgo.NewOffset().At(offset)},
	}))
	must(t, err)
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	fetches := c.PollFetches(ctx)
	must(t, fetches.Err())
	return fetches.Records()[0]
}

func TestForeignRecordsAreSetAside(t *testing.T) {
	b := start(t)
	q := b.open(t)
	beside, _ := b.beside(t)
	key, elsewhere := keyIn(1), keyIn(2)
	must(t, q.Publish(t.Context(), items(key, "1")))
	for _, r := range []*kgo.Record{
		{Topic: topic, Partition: 1, Value: []byte("no key")},
		{Topic: topic, Partition: 1, Key: []byte(elsewhere), Value: []byte("wrong partition")},
	} {
		must(t, beside.ProduceSync(t.Context(), r).FirstErr())
	}
	must(t, q.Publish(t.Context(), items(key, "2")))
	r := &received{}
	consume(t, b.open(t), r.Handle)
	r.Wait(t, "1", "2")
	eventually(t, "nothing is left", func() bool { return depth(t, q) == 0 })
	aside, err := q.SetAside(t.Context(), 10)
	must(t, err)
	var got []string
	for _, a := range aside {
		got = append(got, fmt.Sprint(a.Partition, " ", string(a.Body), ": ", a.Reason))
	}
	want := []string{
		"1 wrong partition: the record's key is one of partition 2",
		"1 no key: the record has no key",
	}
	if !slices.Equal(got, want) {
		t.Errorf("set aside %q, want %q, latest first", got, want)
	}
	if one, err := q.SetAside(t.Context(), 1); err != nil || len(one) != 1 || string(one[0].Body) != "wrong partition" {
		t.Errorf("the last one set aside is %+v (%v), want that of the wrong partition", one, err)
	}
}

func depth(t *testing.T, q queue.Queue) (sum int64) {
	stats, err := q.Stats(t.Context())
	must(t, err)
	for _, p := range stats.Partitions {
		sum += p.Depth
	}
	return sum
}

// What a Publish left behind that was given up comes before what is published afterwards, and not once for each
// attempt.
func TestPublishingAfterAnOutageKeepsOrder(t *testing.T) {
	b := start(t)
	q := b.open(t)
	must(t, q.Publish(t.Context(), items("k", "0")))
	b.Stop()
	for range 5 {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		if err := q.Publish(ctx, items("k", "1", "2")); err == nil {
			t.Error("publishing succeeded without a broker")
		}
		cancel()
	}
	b.StartElsewhere()
	must(t, q.Publish(t.Context(), items("k", "3")))
	must(t, q.Publish(t.Context(), items("k", "1", "2", "3", "4")))
	r := &received{}
	consume(t, b.open(t), r.Handle)
	r.Wait(t, "0", "1", "2", "3", "4")
	if got := r.Bodies(); len(got) > 8 {
		t.Errorf("got %q, want what was given up at most once", got)
	}
}

// A broker that has added records and cannot say so is asked again, and knows what it has.
func TestLostRepliesOfPublishing(t *testing.T) {
	b := start(t)
	q := b.open(t)
	must(t, q.Publish(t.Context(), items("k", "0")))
	lost := b.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.RequestTimedOut, Count: 2})
	for _, body := range []string{"1", "2", "3"} {
		must(t, q.Publish(t.Context(), items("k", body)))
	}
	if lost.Hits() != 2 {
		t.Errorf("%d replies were lost, want 2", lost.Hits())
	}
	r := &received{}
	consume(t, b.open(t), r.Handle)
	r.Wait(t, "0", "1", "2", "3")
	if got := r.Bodies(); len(got) != 4 {
		t.Errorf("got %q, want each once", got)
	}
}

// A partition that moves is handed over only after its handler has returned, and nothing comes twice.
func TestARebalanceWaitsForTheHandler(t *testing.T) {
	b := start(t)
	publisher := b.open(t)
	var mu sync.Mutex
	busy, overlaps := make(map[int]string), 0
	got := make(map[string]int)
	owners := make(map[int]map[string]bool)
	handler := func(name string) queue.Handler {
		return func(_ context.Context, items []queue.Item) error {
			p := queue.Partition(items[0].Key, partitions)
			mu.Lock()
			if busy[p] != "" {
				overlaps++
			}
			busy[p] = name
			if owners[p] == nil {
				owners[p] = make(map[string]bool)
			}
			owners[p][name] = true
			mu.Unlock()
			time.Sleep(time.Second) // longer than the group needs to give a partition away
			mu.Lock()
			defer mu.Unlock()
			busy[p] = ""
			for _, it := range items {
				got[it.Key+string(it.Body)]++
			}
			return nil
		}
	}
	moved := func() (n int) {
		mu.Lock()
		defer mu.Unlock()
		for _, of := range owners {
			if len(of) > 1 {
				n++
			}
		}
		return n
	}
	consume(t, b.open(t), handler("first"))
	published := 0
	publish := func() {
		for p := range partitions {
			must(t, publisher.Publish(t.Context(), items(keyIn(p), fmt.Sprint(published))))
		}
		published++
	}
	for range 3 {
		publish()
		time.Sleep(100 * time.Millisecond)
	}
	consume(t, b.open(t), handler("second"))
	eventually(t, "partitions move", func() bool {
		publish()
		time.Sleep(50 * time.Millisecond)
		return moved() >= 2
	})
	eventually(t, "everything is handled", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(got) == partitions*published
	})
	mu.Lock()
	defer mu.Unlock()
	if overlaps > 0 {
		t.Errorf("%d times two handlers had one partition", overlaps)
	}
	for item, times := range got {
		if times != 1 {
			t.Errorf("%s came %d times", item, times)
		}
	}
}

// The group forgets a consumer whose heartbeats it does not get; its handler is told, and the partition goes on.
func TestALostOwnerIsTold(t *testing.T) {
	b := start(t)
	cfg := b.config()
	cfg.Drain = 2 * patience // it is not this that ends the handler
	q := open(t, cfg, observability.Discard())
	entered, told := make(chan struct{}), make(chan error, 1)
	var once sync.Once
	r := &received{}
	consume(t, q, func(ctx context.Context, items []queue.Item) error {
		var err error
		once.Do(func() {
			close(entered)
			select {
			case <-ctx.Done():
				err = ctx.Err()
			case <-time.After(patience):
			}
			told <- err
		})
		if err != nil {
			return err
		}
		return r.Handle(ctx, items)
	})
	must(t, q.Publish(t.Context(), items("k", "1", "2")))
	<-entered
	b.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, Err: kerr.UnknownMemberID, TopLevel: true})
	if err := <-told; err == nil {
		t.Error("the handler's context has not ended")
	}
	r.Wait(t, "1", "2")
	if got := r.Items()[0].Attempt; got < 2 {
		t.Errorf("attempt is %d, want more than 1", got)
	}
}

// A consumer that vanishes without a word holds its partitions as long as its session lasts.
func TestPartitionsOfADeadConsumerPassOn(t *testing.T) {
	b := start(t)
	dying := b.open(t)
	r := &received{}
	stop := consume(t, dying, r.Handle)
	must(t, dying.Publish(t.Context(), items("k", "1")))
	r.Wait(t, "1")
	unheard := b.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.LeaveGroup}, Err: kerr.CoordinatorLoadInProgress, TopLevel: true, Count: -1})
	stop()
	if unheard.Hits() == 0 {
		t.Error("the group was not to be told, and nobody tried")
	}
	q := b.open(t)
	vanished := time.Now()
	consume(t, q, r.Handle)
	must(t, q.Publish(t.Context(), items("k", "2")))
	r.Wait(t, "1", "2")
	if took := time.Since(vanished); took > 10*time.Second {
		t.Errorf("it took %s, want not much more than the second that the session lasts", took)
	}
}

// What was handed over and not acknowledged is known to the next owner, what was not handed over is new to it.
func TestAttemptsAreKnownToTheNextOwner(t *testing.T) {
	b := start(t)
	cfg := b.config()
	cfg.Batch = 2
	dying := open(t, cfg, observability.Discard())
	before := time.Now().Truncate(time.Millisecond)
	must(t, dying.Publish(t.Context(), items("k", "1", "2", "3", "4")))
	entered, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	stop := consume(t, dying, func(context.Context, []queue.Item) error {
		once.Do(func() { close(entered) })
		<-release
		return nil
	})
	<-entered
	must(t, dying.Close())
	close(release)
	stop()
	_, admin := b.beside(t)
	committed, err := admin.FetchOffsets(t.Context(), "gochat.task")
	must(t, err)
	of, _ := committed.Lookup(topic, int32(queue.Partition("k", partitions)))
	if of.At != 0 || of.Metadata != "handed=2" {
		t.Errorf("committed is %d with %q, want 0 with handed=2", of.At, of.Metadata)
	}
	r := &received{}
	consume(t, b.open(t), r.Handle)
	r.Wait(t, "1", "2", "3", "4")
	var got []int
	for _, it := range r.Items() {
		got = append(got, it.Attempt)
	}
	if want := []int{2, 2, 1, 1}; !slices.Equal(got, want) {
		t.Errorf("attempts %v, want %v", got, want)
	}
	if at := r.Items()[0].EnqueuedAt; at.Before(before) || at.After(time.Now()) {
		t.Errorf("enqueued at %s, want between %s and now", at, before)
	}
}

// What a handler has done while Kafka did not take offsets is committed afterwards, not handed over again.
func TestCommitsAreRepeated(t *testing.T) {
	b := start(t)
	q := b.open(t)
	must(t, q.Publish(t.Context(), items("k", "1", "2")))
	b.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Err: kerr.GroupAuthorizationFailed, Count: 4})
	r := &received{}
	stop := consume(t, q, r.Handle)
	eventually(t, "Ping says so", func() bool { return q.Ping(t.Context()) != nil })
	eventually(t, "they are acknowledged", func() bool { return depth(t, q) == 0 })
	eventually(t, "Ping is content", func() bool { return q.Ping(t.Context()) == nil })
	stop()
	if got := r.Bodies(); !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("got %q, want each once", got)
	}
}

// Topics that are deleted under everybody's feet are made again.
func TestDeletedTopicsAreMadeAgain(t *testing.T) {
	b := start(t)
	q := b.open(t)
	r := &received{}
	want := []string{"before"}
	consume(t, b.open(t), r.Handle)
	must(t, q.Publish(t.Context(), items("k", "before")))
	r.Wait(t, want...)
	for _, body := range []string{"after one", "after two"} {
		must(t, b.DeleteTopic(topic))
		eventually(t, "publishing works", func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			return q.Publish(ctx, items("k", body)) == nil
		})
		want = append(want, body)
		r.Wait(t, want...)
	}
	must(t, q.Ping(t.Context()))
}

func TestAnItemThatIsTooLargeIsRefusedAlone(t *testing.T) {
	b := start(t)
	q := b.open(t)
	large := items("k", "1", strings.Repeat("x", 1<<20), "2")
	if err := q.Publish(t.Context(), large); err == nil {
		t.Error("a publish with an item larger than Kafka takes succeeded")
	}
	if got := depth(t, q); got != 0 {
		t.Errorf("%d items are held, want none: the others would be without the one between", got)
	}
}

// A handler that is slow does not make everything that waits come into memory.
func TestASlowHandlerHoldsUpFetching(t *testing.T) {
	const published = 200
	body := make([]byte, 100_000)
	_, _ = rand.Read(body) // does not compress
	b := start(t)
	q := b.open(t)
	for range published {
		must(t, q.Publish(t.Context(), items("k", string(body))))
	}
	var highest atomic.Int64
	watch := b.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Count: -1, Observe: true, When: func(req kmsg.Request) bool {
		for _, of := range req.(*kmsg.FetchRequest).Topics {
			for _, p := range of.Partitions {
				if int(p.Partition) == queue.Partition("k", partitions) {
					highest.Store(max(highest.Load(), p.FetchOffset))
				}
			}
		}
		return true
	}})
	entered, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var handled atomic.Int64
	consume(t, q, func(_ context.Context, items []queue.Item) error {
		once.Do(func() { close(entered); <-release })
		handled.Add(int64(len(items)))
		return nil
	})
	<-entered
	time.Sleep(1500 * time.Millisecond) // the control: everything is fetched after release
	if got := highest.Load(); got > published/2 {
		t.Errorf("records up to %d are fetched, want those of about 5 MiB", got)
	}
	close(release)
	eventually(t, "everything is handled", func() bool { return handled.Load() == published })
	if got := highest.Load(); got < published/2 || watch.Hits() == 0 {
		t.Errorf("records up to %d are seen to be fetched in %d requests, want all", got, watch.Hits())
	}
}

func TestSASLAndTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	server := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}
	b := start(t, kfake.TLS(server), kfake.EnableSASL(),
		kfake.Superuser("PLAIN", "plain", "p"), kfake.Superuser("SCRAM-SHA-256", "s256", "p"), kfake.Superuser("SCRAM-SHA-512", "s512", "p"))
	for _, c := range []struct {
		name, sasl, user, pass string
		tls, ok                bool
	}{
		{"plain", "plain", "plain", "p", true, true},
		{"scram 256", "scram-sha-256", "s256", "p", true, true},
		{"scram 512", "scram-sha-512", "s512", "p", true, true},
		{"wrong password", "scram-sha-512", "s512", "q", true, false},
		{"no user", "", "", "", true, false},
		{"no tls", "plain", "plain", "p", false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := b.config()
			cfg.SASL, cfg.User, cfg.Pass = c.sasl, c.user, c.pass
			if c.tls {
				cfg.TLS = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
			}
			q := open(t, cfg, observability.Discard())
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			if err := q.Ping(ctx); (err == nil) != c.ok {
				t.Errorf("Ping: %v, want success %v", err, c.ok)
			}
		})
	}
}

// The items are the caller's again when Publish has returned, even if what was in them is still on its way.
func TestPublishCopies(t *testing.T) {
	b := start(t)
	q := b.open(t)
	must(t, q.Publish(t.Context(), items("k", "0")))
	refused := b.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotLeaderForPartition, Count: -1})
	batch := items("k", "1")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := q.Publish(ctx, batch); err == nil {
		t.Fatal("publishing succeeded though the broker refused")
	}
	copy(batch[0].Body, "x")
	refused.Remove()
	must(t, q.Publish(t.Context(), items("k", "2")))
	r := &received{}
	consume(t, b.open(t), r.Handle)
	r.Wait(t, "0", "1", "2")
}
