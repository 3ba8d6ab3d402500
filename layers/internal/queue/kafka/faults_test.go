package kafka_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
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
		"Consume": q.Consume(t.Context(), (&received{}).handle),
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
	c, err := kgo.NewClient(kgo.SeedBrokers(b.seeds()...), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{
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
	consume(t, b.open(t), r.handle)
	r.wait(t, "1", "2")
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
	b.stop()
	for range 5 {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		if err := q.Publish(ctx, items("k", "1", "2")); err == nil {
			t.Error("publishing succeeded without a broker")
		}
		cancel()
	}
	b.start()
	must(t, q.Publish(t.Context(), items("k", "3")))
	must(t, q.Publish(t.Context(), items("k", "1", "2", "3", "4")))
	r := &received{}
	consume(t, b.open(t), r.handle)
	r.wait(t, "0", "1", "2", "3", "4")
	if got := r.bodies(); len(got) > 8 {
		t.Errorf("got %q, want what was given up at most once", got)
	}
}

// A reply that is lost is asked for again, and the broker knows what it has.
func TestLostRepliesOfPublishing(t *testing.T) {
	b := start(t)
	q := b.open(t)
	must(t, q.Publish(t.Context(), items("k", "0")))
	// Not the first: the client may only send those again of which it knows that they can be told apart.
	lost := 0
	b.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		lost++
		if lost > 2 {
			return nil, nil, false
		}
		b.KeepControl()
		return nil, errors.New("cut by the test"), true
	})
	for _, body := range []string{"1", "2", "3"} {
		must(t, q.Publish(t.Context(), items("k", body)))
	}
	if lost == 0 {
		t.Error("no reply was lost")
	}
	r := &received{}
	consume(t, b.open(t), r.handle)
	r.wait(t, "0", "1", "2", "3")
	if got := r.bodies(); len(got) != 4 {
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
			time.Sleep(300 * time.Millisecond)
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
	q := b.open(t)
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
		return r.handle(ctx, items)
	})
	must(t, q.Publish(t.Context(), items("k", "1", "2")))
	<-entered
	b.ControlKey(int16(kmsg.Heartbeat), func(req kmsg.Request) (kmsg.Response, error, bool) {
		resp := req.ResponseKind().(*kmsg.HeartbeatResponse)
		resp.ErrorCode = kerr.UnknownMemberID.Code
		return resp, nil, true
	})
	if err := <-told; err == nil {
		t.Error("the handler's context has not ended")
	}
	r.wait(t, "1", "2")
	if got := r.items[0].Attempt; got < 2 {
		t.Errorf("attempt is %d, want more than 1", got)
	}
}

// What was handed over and not acknowledged is known to the next owner, what was not handed over is new to it.
func TestAttemptsAreKnownToTheNextOwner(t *testing.T) {
	b := start(t)
	cfg := b.config()
	cfg.Batch = 2
	dying := open(t, cfg, observability.Discard())
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
	r := &received{}
	consume(t, b.open(t), r.handle)
	r.wait(t, "1", "2", "3", "4")
	var got []int
	for _, it := range r.items {
		got = append(got, it.Attempt)
	}
	if want := []int{2, 2, 1, 1}; !slices.Equal(got, want) {
		t.Errorf("attempts %v, want %v", got, want)
	}
}

// What a handler has done while Kafka did not take offsets is committed afterwards, not handed over again.
func TestCommitsAreRepeated(t *testing.T) {
	b := start(t)
	q := b.open(t)
	must(t, q.Publish(t.Context(), items("k", "1", "2")))
	refused := 0
	b.ControlKey(int16(kmsg.OffsetCommit), func(req kmsg.Request) (kmsg.Response, error, bool) {
		refused++
		if refused > 4 {
			return nil, nil, false
		}
		b.KeepControl()
		asked := req.(*kmsg.OffsetCommitRequest)
		resp := req.ResponseKind().(*kmsg.OffsetCommitResponse)
		for _, topic := range asked.Topics {
			answer := kmsg.NewOffsetCommitResponseTopic()
			answer.Topic, answer.TopicID = topic.Topic, topic.TopicID
			for _, p := range topic.Partitions {
				of := kmsg.NewOffsetCommitResponseTopicPartition()
				of.Partition, of.ErrorCode = p.Partition, kerr.GroupAuthorizationFailed.Code
				answer.Partitions = append(answer.Partitions, of)
			}
			resp.Topics = append(resp.Topics, answer)
		}
		return resp, nil, true
	})
	r := &received{}
	stop := consume(t, q, r.handle)
	eventually(t, "Ping says so", func() bool { return q.Ping(t.Context()) != nil })
	eventually(t, "they are acknowledged", func() bool { return depth(t, q) == 0 })
	eventually(t, "Ping is content", func() bool { return q.Ping(t.Context()) == nil })
	stop()
	if got := r.bodies(); !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("got %q, want each once", got)
	}
}

// Topics that are deleted under everybody's feet are made again.
func TestDeletedTopicsAreMadeAgain(t *testing.T) {
	b := start(t)
	q := b.open(t)
	r := &received{}
	want := []string{"before"}
	consume(t, b.open(t), r.handle)
	must(t, q.Publish(t.Context(), items("k", "before")))
	r.wait(t, want...)
	for _, body := range []string{"after one", "after two"} {
		must(t, b.DeleteTopic(topic))
		eventually(t, "publishing works", func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			return q.Publish(ctx, items("k", body)) == nil
		})
		want = append(want, body)
		r.wait(t, want...)
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
