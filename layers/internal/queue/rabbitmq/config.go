package rabbitmq

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"gochat/layers/internal/queue"
)

// Config is how the queue is reached and what it may hold.
type Config struct {
	queue.Config

	// URL is amqp://user:password@host:port/vhost, or amqps. Several host:port, separated by commas, are nodes of one
	// broker; they are tried in turn, and names are resolved anew each time.
	URL string
	// Prefix begins the names of all queues.
	Prefix string
	// Heartbeat is how often each side lets the other know that it lives. A side that is not heard of for two to
	// three of them is taken for dead, and what it had read passes on. Whole seconds.
	Heartbeat time.Duration
}

// DefaultConfig lacks only the URL.
func DefaultConfig() Config {
	return Config{Config: queue.Defaults(), Prefix: "gochat.deliveries", Heartbeat: 5 * time.Second}
}

// Validate says everything that is wrong.
func (c Config) Validate() error {
	var errs []error
	if err := CheckURL(c.URL); err != nil {
		errs = append(errs, err)
	}
	if c.Prefix == "" || len(c.Prefix) > 200 { // a queue's name has at most 255 bytes
		errs = append(errs, fmt.Errorf("prefix: %d bytes are not in [1,200]", len(c.Prefix)))
	}
	if c.Heartbeat < time.Second || c.Heartbeat%time.Second != 0 {
		errs = append(errs, fmt.Errorf("heartbeat: %s is not whole seconds", c.Heartbeat))
	}
	return errors.Join(append(errs, c.Config.Validate())...)
}

// CheckURL says whether it may be a Config's URL. The error does not show the password.
func CheckURL(of string) error {
	_, err := split(of)
	return err
}

// split answers a URL for each host.
func split(of string) ([]string, error) {
	bad := errors.New("url: want amqp://user:password@host:port/vhost")
	u, err := url.Parse(of)
	if err != nil {
		return nil, bad // err shows the password
	}
	var urls []string
	for host := range strings.SplitSeq(u.Host, ",") {
		one := *u
		one.Host = host
		if _, err := amqp.ParseURI(one.String()); err != nil || host == "" {
			return nil, bad
		}
		urls = append(urls, one.String())
	}
	return urls, nil
}
