package rpc

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"time"

	"github.com/smallnest/rpcx/protocol"
	"github.com/smallnest/rpcx/server"
	"github.com/smallnest/rpcx/share"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"gochat/layers/internal/contract"
	"gochat/observability"
)

// Services as they are named on the wire and in spans.
const (
	serviceLogic   = "Logic"
	serviceConnect = "Connect"
)

// Server answers the other layers for every layer of one process.
type Server struct {
	listener  net.Listener
	advertise string
	rpcx      *server.Server
	telemetry
}

// NewServer binds cfg.Listen. Services are added with ServeLogic and ServeConnect, then Run serves them.
func NewServer(cfg Config, tel observability.Telemetry) (*Server, error) {
	l, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for rpc: %w", err)
	}
	s := &Server{
		listener:  l,
		advertise: cfg.Advertise,
		rpcx:      server.NewServer(server.WithWriteTimeout(cfg.Timeout)),
		telemetry: newTelemetry(tel, "server"),
	}
	if s.advertise == "" {
		s.advertise = l.Addr().String()
	}
	// Digests have one length, so that the comparison says nothing about the secret's.
	want := sha256.Sum256([]byte(cfg.Secret))
	s.rpcx.AuthFunc = func(_ context.Context, _ *protocol.Message, token string) error {
		got := sha256.Sum256([]byte(token))
		if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			return errors.New("peer is not authenticated")
		}
		return nil
	}
	s.rpcx.HandleServiceError = func(err error) { s.log.Debug("rpc request refused", "err", err) }
	return s, nil
}

// Addr is the address under which others reach this server.
func (s *Server) Addr() string { return s.advertise }

// Close releases the port of a server that will not be run.
func (s *Server) Close() error { return s.listener.Close() }

// Run serves until ctx ends, then lets the calls in flight finish, for drain at most.
func (s *Server) Run(ctx context.Context, drain time.Duration) error {
	served := make(chan error, 1)
	// The network's name keeps rpcx from putting its HTTP and JSON-RPC gateways before the listener.
	go func() { served <- s.rpcx.ServeListener("rpcx", s.listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve rpc: %w", err)
	case <-ctx.Done():
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	err := s.rpcx.Shutdown(bounded)
	if serveErr := <-served; !errors.Is(serveErr, server.ErrServerClosed) {
		err = errors.Join(err, serveErr)
	}
	if err != nil {
		return fmt.Errorf("drain rpc: %w", err)
	}
	return nil
}

// handle registers one method of a service.
func handle[A, R any](s *Server, service, method string, f func(context.Context, *A) (*R, error)) error {
	name := service + "/" + method
	answer := func(ctx context.Context, arg *A, reply *Reply[R]) error {
		metadata, _ := ctx.Value(share.ReqMetaDataKey).(map[string]string)
		ctx = s.propagator.Extract(ctx, propagation.MapCarrier(metadata))
		ctx, span := s.tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindServer))
		defer span.End()
		start := time.Now()
		value, err := safely(ctx, arg, f)
		s.seconds.WithLabelValues(service, method, codeLabel(err)).Observe(time.Since(start).Seconds())
		reply.Value, reply.Err = value, contract.AsError(err)
		// What the client does not get to see is said here; the rest is the caller's to log.
		if reply.Err != nil && reply.Err.Code == contract.Internal {
			s.log.ErrorContext(ctx, "rpc call failed", "method", name, "err", err)
		}
		return nil
	}
	if err := s.rpcx.RegisterFunctionName(service, method, answer, ""); err != nil {
		return fmt.Errorf("register %s: %w", name, err)
	}
	return nil
}

// safely turns a panic into an error here, since rpcx would log the argument with it, passwords included.
func safely[A, R any](ctx context.Context, arg *A, f func(context.Context, *A) (*R, error)) (value *R, err error) {
	defer func() {
		if r := recover(); r != nil {
			value, err = nil, fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	return f(ctx, arg)
}

// ServeLogic answers contract.Logic with l.
func (s *Server) ServeLogic(l contract.Logic) error {
	return errors.Join(
		handle(s, serviceLogic, "Register", l.Register),
		handle(s, serviceLogic, "Login", l.Login),
		handle(s, serviceLogic, "Logout", l.Logout),
		handle(s, serviceLogic, "Authenticate", l.Authenticate),
		handle(s, serviceLogic, "Sessions", l.Sessions),
		handle(s, serviceLogic, "EndSessions", l.EndSessions),
		handle(s, serviceLogic, "CheckSessions", l.CheckSessions),
		handle(s, serviceLogic, "ForgetSessions", l.ForgetSessions),
		handle(s, serviceLogic, "FindUsers", l.FindUsers),
		handle(s, serviceLogic, "CreateRoom", l.CreateRoom),
		handle(s, serviceLogic, "Rooms", l.Rooms),
		handle(s, serviceLogic, "Room", l.Room),
		handle(s, serviceLogic, "JoinRoom", l.JoinRoom),
		handle(s, serviceLogic, "LeaveRoom", l.LeaveRoom),
		handle(s, serviceLogic, "Members", l.Members),
		handle(s, serviceLogic, "EnterRoom", l.EnterRoom),
		handle(s, serviceLogic, "Online", l.Online),
		handle(s, serviceLogic, "Announce", l.Announce),
		handle(s, serviceLogic, "PresenceChanged", l.PresenceChanged),
		handle(s, serviceLogic, "Send", l.Send),
		handle(s, serviceLogic, "History", l.History),
		handle(s, serviceLogic, "Heads", l.Heads),
		handle(s, serviceLogic, "Inbox", l.Inbox),
		handle(s, serviceLogic, "MarkRead", l.MarkRead),
		handle(s, serviceLogic, "Typing", l.Typing),
	)
}

// ServeConnect answers contract.Connect with c.
func (s *Server) ServeConnect(c contract.Connect) error {
	return errors.Join(
		handle(s, serviceConnect, "Push", c.Push),
		handle(s, serviceConnect, "CloseSessions", c.CloseSessions),
		handle(s, serviceConnect, "LeaveRoom", c.LeaveRoom),
	)
}
