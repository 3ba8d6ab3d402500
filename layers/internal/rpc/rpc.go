package rpc

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	rpcxcodec "github.com/smallnest/rpcx/codec"
	rpcxlog "github.com/smallnest/rpcx/log"
	"github.com/smallnest/rpcx/protocol"
	"go.opentelemetry.io/otel/trace"

	"gochat/layers/internal/address"
	"gochat/layers/internal/contract"
	"gochat/observability"
)

// Config is how the layers reach one another.
type Config struct {
	Listen    string        `koanf:"listen" doc:"host:port where this process answers other layers; port 0 takes a free one"`
	Advertise string        `koanf:"advertise" doc:"host:port under which others reach it; empty is what was bound, port 0 the port that was bound, the host hostname this machine's own name"`
	Secret    string        `koanf:"secret" secret:"true" doc:"shared by all processes of one system, at least 16 characters"`
	Timeout   time.Duration `koanf:"timeout" doc:"deadline of a call that comes without one"`
}

// Defaults are the values of a Config that is not told otherwise; Secret has none.
func Defaults() Config {
	return Config{Listen: "127.0.0.1:0", Timeout: 5 * time.Second}
}

// Validate reports what may not be. A Secret that is not set is the caller's to refuse where one is needed.
func (c Config) Validate() error {
	var errs []error
	if err := address.CheckListen(c.Listen); err != nil {
		errs = append(errs, fmt.Errorf("listen: %w", err))
	} else if c.Advertise == "" && everyAddress(c.Listen) {
		// Of the two keys the one that is set is named, so that its source is.
		errs = append(errs, fmt.Errorf("listen: %q is every address, which others cannot reach: want one host's, or rpc.advertise set", c.Listen))
	}
	if c.Advertise != "" {
		if err := address.CheckListen(c.Advertise); err != nil {
			errs = append(errs, fmt.Errorf("advertise: %w", err))
		} else if everyAddress(c.Advertise) {
			errs = append(errs, fmt.Errorf("advertise: %q: want a host that others can reach, and a port from 0 to 65535", c.Advertise))
		}
	}
	if c.Secret != "" && len(c.Secret) < 16 {
		errs = append(errs, errors.New("secret: want at least 16 characters, the same in every process"))
	}
	if c.Timeout < 100*time.Millisecond {
		errs = append(errs, fmt.Errorf("timeout: %v: want 100ms or more", c.Timeout))
	}
	return errors.Join(errs...)
}

// everyAddress reports whether an address that can be bound is no one host's: without a host, 0.0.0.0 or ::.
func everyAddress(addr string) bool {
	host, _, _ := net.SplitHostPort(addr) // its form has been checked
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}

// ownName stands, as the host of Config.Advertise, for the name of the machine: of containers that are made from one
// description each has another.
const ownName = "hostname"

// advertised is the address that is told to others, for a listener bound at bound.
func (c Config) advertised(bound net.Addr) (string, error) {
	host, port, err := net.SplitHostPort(c.Advertise)
	if err != nil {
		return bound.String(), nil // it is empty: Validate has let nothing else pass
	}
	if port == "0" {
		_, port, _ = net.SplitHostPort(bound.String()) // a listener's address has a port
	}
	if host == ownName {
		if host, err = os.Hostname(); err != nil {
			return "", err
		}
	}
	return net.JoinHostPort(host, port), nil
}

// maxMessage bounds what a peer can make this process allocate: a push of 500 of the largest frames is a quarter.
// maxPayload leaves room in it for names and metadata.
const (
	maxMessage = 64 << 20
	maxPayload = maxMessage - 64<<10
)

// codec is how arguments and replies are written.
var codec rpcxcodec.MsgpackCodec

// ConfigureLibrary sets what rpcx keeps for the whole process: where it logs and how long a message may be. Only
// a program's main part calls it, once, before anything else of this package is used.
func ConfigureLibrary(log *slog.Logger) {
	rpcxlog.SetLogger(libraryLog{log.With("lib", "rpcx")})
	protocol.MaxMessageLength = maxMessage
}

// libraryLog hands rpcx's log on at debug level: a lost connection is reported by who used it.
type libraryLog struct{ log *slog.Logger }

func (l libraryLog) Debug(v ...any)                 { l.log.Debug(fmt.Sprint(v...)) }
func (l libraryLog) Debugf(format string, v ...any) { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l libraryLog) Info(v ...any)                  { l.Debug(v...) }
func (l libraryLog) Infof(format string, v ...any)  { l.Debugf(format, v...) }
func (l libraryLog) Warn(v ...any)                  { l.Debug(v...) }
func (l libraryLog) Warnf(format string, v ...any)  { l.Debugf(format, v...) }
func (l libraryLog) Error(v ...any)                 { l.Debug(v...) }
func (l libraryLog) Errorf(format string, v ...any) { l.Debugf(format, v...) }
func (l libraryLog) Fatal(v ...any)                 { l.Debug(v...) }
func (l libraryLog) Fatalf(format string, v ...any) { l.Debugf(format, v...) }
func (l libraryLog) Panic(v ...any)                 { l.Debug(v...) }
func (l libraryLog) Panicf(format string, v ...any) { l.Debugf(format, v...) }

// Reply is what crosses back: a value or an error.
type Reply[R any] struct {
	Value *R
	Err   *contract.Error
}

// telemetry is what both ends are seen by.
type telemetry struct {
	tracer  trace.Tracer
	log     *slog.Logger
	seconds *prometheus.HistogramVec
}

func newTelemetry(tel observability.Telemetry, side string) telemetry {
	return telemetry{
		tracer: tel.Traces.Tracer("gochat/layers/internal/rpc"),
		log:    tel.Log,
		seconds: promauto.With(tel.Metrics).NewHistogramVec(observability.LatencyOpts("gochat_rpc_"+side+"_seconds",
			"Duration of rpc calls on the "+side+" side, by method and code word (ok for success)."), []string{"service", "method", "code"}),
	}
}

func codeLabel(err error) string {
	if code := contract.CodeOf(err); code != "" {
		return string(code)
	}
	return "ok"
}
