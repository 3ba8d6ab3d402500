package testdeps

import (
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

// KafkaCluster is kfake, the imitation of a Kafka cluster by the authors of franz-go, with two brokers in the test's own
// process: Debian has no Kafka. It can be closed, not killed, and keeps what it holds over its lives. It has two places
// on loopback and is at one of them. Its methods end the test on failure, so they are called from the test's goroutine
// alone.
type KafkaCluster struct {
	*kfake.Cluster // of its present life, or of the last

	t       testing.TB
	options []kfake.Opt
	places  [2][]int // the brokers' ports
	at      int      // which of the places
}

// Kafka starts an empty cluster. It ends with the test.
func Kafka(t testing.TB, options ...kfake.Opt) *KafkaCluster {
	t.Helper()
	c := &KafkaCluster{t: t, options: append(slices.Clone(options), kfake.NumBrokers(2), kfake.DataDir(t.TempDir()))}
	for i := range c.places {
		c.places[i] = freePorts(t, 2)
	}
	c.Start()
	t.Cleanup(func() { c.Stop() })
	return c
}

// Start starts a stopped cluster at the same place, with what it held.
func (c *KafkaCluster) Start() {
	c.t.Helper()
	for deadline := time.Now().Add(startLimit); ; time.Sleep(20 * time.Millisecond) {
		cluster, err := kfake.NewCluster(append(slices.Clone(c.options), kfake.Ports(c.places[c.at]...))...)
		if err == nil {
			c.Cluster = cluster
			return
		}
		if time.Now().After(deadline) { // another process may have a port for a moment
			c.t.Fatalf("start kfake: %v", err)
		}
	}
}

// StartElsewhere is Start at the other place.
func (c *KafkaCluster) StartElsewhere() {
	c.t.Helper()
	c.at = 1 - c.at
	c.Start()
}

// Stop ends the cluster: its connections are cut.
func (c *KafkaCluster) Stop() { c.Cluster.Close() }

// Addrs are a broker of each place, so they stay the same wherever the cluster is.
func (c *KafkaCluster) Addrs() []string {
	var all []string
	for _, ports := range c.places {
		all = append(all, net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[0])))
	}
	return all
}

// URL names Addrs.
func (c *KafkaCluster) URL() string {
	u := url.URL{Scheme: "kafka", Host: strings.Join(c.Addrs(), ",")}
	return u.String()
}

// freePorts are ports that were free a moment ago.
func freePorts(t testing.TB, n int) (ports []int) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatalf("find a free port: %v", err)
		}
		defer func() { _ = l.Close() }() // only now, or the next might be the same
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}
