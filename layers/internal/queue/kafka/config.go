package kafka

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"gochat/layers/internal/queue"
)

// Config is how the queue is reached and what it may hold.
type Config struct {
	queue.Config
	// Brokers are host:port of some of the cluster's brokers: the others are found through any that answers.
	Brokers []string
	SASL    string // one of the mechanisms; empty for none
	User    string
	Pass    string
	TLS     *tls.Config // nil for none
	// Topic is the name of the topic of deliveries; what is set aside is in another one, Topic + ".aside".
	Topic string
	// Session is how long the group keeps the partitions of a consumer that has died.
	Session time.Duration
}

// The SASL mechanisms.
const (
	saslPlain       = "plain"
	saslScramSHA256 = "scram-sha-256"
	saslScramSHA512 = "scram-sha-512"
)

var mechanisms = []string{saslPlain, saslScramSHA256, saslScramSHA512}

// DefaultConfig lacks only the brokers.
func DefaultConfig() Config {
	return Config{Config: queue.Defaults(), Topic: "gochat.deliveries", Session: 10 * time.Second}
}

// URLForm is what ParseURL takes.
const URLForm = "kafka://user:password@host:9092,host2:9092?tls=true&sasl=plain|scram-sha-256|scram-sha-512"

// ParseURL is the default configuration with what the URL says. Its errors do not show the URL, which has a password.
func ParseURL(raw string) (Config, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "kafka" || u.Host == "" || strings.Trim(u.Path, "/") != "" {
		return Config{}, errors.New("it has another form")
	}
	c := DefaultConfig()
	for _, broker := range strings.Split(u.Host, ",") {
		if u, err := url.Parse("//" + broker); err == nil && u.Port() == "" {
			broker = net.JoinHostPort(u.Hostname(), "9092")
		}
		c.Brokers = append(c.Brokers, broker)
	}
	c.User = u.User.Username()
	c.Pass, _ = u.User.Password()
	for name, values := range u.Query() {
		switch value := values[0]; {
		case name == "sasl":
			c.SASL = value
		case name == "tls" && value == "true":
			c.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
		case name == "tls" && value == "false":
		default:
			return Config{}, fmt.Errorf("%s=%s is none of its options", name, value)
		}
	}
	return c, c.checkAccess()
}

// Validate says everything that is wrong.
func (c Config) Validate() error {
	errs := []error{c.checkAccess()}
	if c.Topic == "" {
		errs = append(errs, errors.New("topic: is empty"))
	}
	if c.Session < time.Second {
		errs = append(errs, fmt.Errorf("session: %s is less than a second", c.Session))
	}
	return errors.Join(append(errs, c.Config.Validate())...)
}

func (c Config) checkAccess() error {
	var errs []error
	if len(c.Brokers) == 0 {
		errs = append(errs, errors.New("brokers: want at least one host:port"))
	}
	for _, broker := range c.Brokers {
		if host, port, err := net.SplitHostPort(broker); err != nil || host == "" || port == "" {
			errs = append(errs, fmt.Errorf("brokers: %q is not host:port", broker))
		}
	}
	switch known := slices.Contains(mechanisms, c.SASL); {
	case c.SASL == "" && (c.User != "" || c.Pass != ""):
		errs = append(errs, fmt.Errorf("sasl: a user needs a mechanism, one of %s", strings.Join(mechanisms, ", ")))
	case c.SASL != "" && !known:
		errs = append(errs, fmt.Errorf("sasl: %q is none of %s", c.SASL, strings.Join(mechanisms, ", ")))
	case known && c.User == "":
		errs = append(errs, fmt.Errorf("sasl: %s needs a user", c.SASL))
	}
	return errors.Join(errs...)
}

// asideTopic is where items go that were set aside.
func (c Config) asideTopic() string { return c.Topic + ".aside" }

// access are the options of every client: how the brokers are reached.
func (c Config) access() []kgo.Opt {
	opts := []kgo.Opt{
		kgo.ClientID("gochat"),
		kgo.SeedBrokers(c.Brokers...),
		kgo.DialTimeout(2 * time.Second),
		kgo.RequestTimeoutOverhead(opTimeout),
		kgo.RetryBackoffFn(func(fails int) time.Duration {
			return min(maxBackoff, minBackoff<<min(max(fails-1, 0), 10))
		}),
		// Where a partition is led from now is worth asking at every failure.
		kgo.MetadataMinAge(minBackoff),
		kgo.MetadataMaxAge(time.Minute),
	}
	if c.TLS != nil {
		opts = append(opts, kgo.DialTLSConfig(c.TLS.Clone()))
	}
	switch c.SASL {
	case saslPlain:
		opts = append(opts, kgo.SASL(plain.Auth{User: c.User, Pass: c.Pass}.AsMechanism()))
	case saslScramSHA256:
		opts = append(opts, kgo.SASL(scram.Auth{User: c.User, Pass: c.Pass}.AsSha256Mechanism()))
	case saslScramSHA512:
		opts = append(opts, kgo.SASL(scram.Auth{User: c.User, Pass: c.Pass}.AsSha512Mechanism()))
	}
	return opts
}
