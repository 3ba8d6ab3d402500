package rpc

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"time"

	"github.com/smallnest/rpcx/protocol"
	"github.com/smallnest/rpcx/server"
	"github.com/smallnest/rpcx/share"
	"go.opentelemetry.io/otel/trace"

	"gochat/layers/internal/contract"
	"gochat/observability"
)

// Services as they are named on the wire and in spans.
const (
	serviceLogic   = "Logic"
	serviceConnect = "Connect"
	serviceTask    = "Task"
)

// Server answers the other layers for every layer of one process.
type Server struct {
	listener  net.Listener
	advertise string
	rpcx      *server.Server
	workers   *workers
	log       *slog.Logger
}

// NewServer binds cfg.Listen. Services are added with ServeLogic, ServeConnect and ServeTask, then Run serves them. It refuses a
// configuration without a Secret, which would let everybody in.
func NewServer(cfg Config, log *slog.Logger) (*Server, error) {
	if cfg.Secret == "" {
		return nil, errors.New("listen for rpc: no secret is set")
	}
	l, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for rpc: %w", err)
	}
	advertise, err := cfg.advertised(l.Addr())
	if err != nil {
		_ = l.Close() // nothing has come by it
		return nil, fmt.Errorf("listen for rpc: %w", err)
	}
	srv := &Server{
		listener:  l,
		advertise: advertise,
		rpcx:      server.NewServer(server.WithWriteTimeout(cfg.Timeout)),
		workers:   newWorkers(),
		log:       log,
	}
	srv.rpcx.Plugins.Add(&gate{want: sha256.Sum256([]byte(cfg.Secret)), log: log})
	srv.rpcx.HandleServiceError = func(err error) { srv.log.Debug("rpc request refused", "err", err) }
	return srv, nil
}

// gate lets in who knows the secret, and no answer out that the peer would choke on.
type gate struct {
	want [sha256.Size]byte // digests have one length, so that comparing them says nothing about the secret
	log  *slog.Logger
}

// PostReadRequest is called for every message, heartbeats included. After an error rpcx cuts the connection without
// an answer.
func (g *gate) PostReadRequest(ctx context.Context, request *protocol.Message, err error) error {
	if err != nil {
		return err
	}
	got := sha256.Sum256([]byte(request.Metadata[share.AuthKey]))
	if subtle.ConstantTimeCompare(got[:], g.want[:]) != 1 {
		var from string
		if conn, ok := ctx.Value(server.RemoteConnContextKey).(net.Conn); ok {
			from = conn.RemoteAddr().String()
		}
		g.log.WarnContext(ctx, "rpc peer without the secret cut off", "peer", from)
		return errors.New("peer is not authenticated")
	}
	delete(request.Metadata, share.AuthKey)
	return nil
}

// PreWriteResponse replaces a reply above the limit, for which the peer would give up the connection and with it the
// calls of others.
func (g *gate) PreWriteResponse(_ context.Context, _, response *protocol.Message, _ error) error {
	if len(response.Payload) <= maxPayload {
		return nil
	}
	err := &contract.Error{Code: contract.TooLarge, Message: fmt.Sprintf("the reply is over %d bytes", maxPayload)}
	payload, encodeErr := codec.Encode(&Reply[contract.Empty]{Err: err})
	response.Payload = payload
	return encodeErr
}

// Addr is the address under which others reach this server.
func (srv *Server) Addr() string { return srv.advertise }

// Close releases the port of a server that will not be run.
func (srv *Server) Close() error {
	srv.workers.end()
	return srv.listener.Close()
}

// Run serves until ctx ends, then lets the calls in flight finish, for drain at most.
func (srv *Server) Run(ctx context.Context, drain time.Duration) error {
	defer srv.workers.end()
	served := make(chan error, 1)
	// The network's name keeps rpcx from putting its HTTP and JSON-RPC gateways before the listener.
	go func() { served <- srv.rpcx.ServeListener("rpcx", srv.listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve rpc: %w", err)
	case <-ctx.Done():
		<-srv.rpcx.Started // before that, Shutdown would not close the listener
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	err := srv.rpcx.Shutdown(bounded)
	if serveErr := <-served; !errors.Is(serveErr, server.ErrServerClosed) {
		err = errors.Join(err, serveErr)
	}
	if err != nil {
		return fmt.Errorf("drain rpc: %w", err)
	}
	return nil
}

// service is one layer as it is served, seen by that layer's telemetry.
type service struct {
	name    string
	rpcx    *server.Server
	workers *workers
	telemetry
}

// handle registers one method of a service.
func handle[A, R any](s *service, method string, f func(context.Context, *A) (*R, error)) error {
	return s.register(method, func(ctx context.Context, arg *A, reply *Reply[R]) error {
		metadata, _ := ctx.Value(share.ReqMetaDataKey).(map[string]string)
		*reply = answer(ctx, s, method, metadata[contract.HeaderTraceparent], arg, f)
		return nil
	})
}

func (s *service) register(method string, f any) error {
	if err := s.rpcx.RegisterFunctionName(s.name, method, f, ""); err != nil {
		return fmt.Errorf("register %s/%s: %w", s.name, method, err)
	}
	return nil
}

// answer handles one call.
func answer[A, R any](
	ctx context.Context, s *service, method, traceparent string, arg *A, f func(context.Context, *A) (*R, error),
) Reply[R] {
	ctx, span := s.startSpan(observability.Remote(ctx, traceparent), s.name+"/"+method, trace.SpanKindServer)
	reply, err := do(ctx, s, method, arg, f)
	endSpan(span, err)
	return reply
}

// do is answer without a span. The error is the one that reply.Err tells the caller of.
func do[A, R any](
	ctx context.Context, s *service, method string, arg *A, f func(context.Context, *A) (*R, error),
) (Reply[R], error) {
	name := s.name + "/" + method
	start := time.Now()
	value, err := safely(ctx, arg, f)
	observability.Observe(s.seconds.WithLabelValues(s.name, method, codeLabel(err)), time.Since(start).Seconds(),
		trace.SpanContextFromContext(ctx))
	reply := Reply[R]{Value: value, Err: contract.AsError(err)}
	// What the client does not get to see is said here; the rest is the caller's to log.
	switch _, whole := err.(*contract.Error); {
	case reply.Err == nil:
	case reply.Err.Code == contract.Internal:
		s.log.ErrorContext(ctx, "rpc call failed", "method", name, "err", err)
	case reply.Err.Code == contract.Unavailable && !whole && ctx.Err() == nil: // what is away, and how that shows
		s.log.WarnContext(ctx, "rpc call not answered", "method", name, "err", err)
	}
	return reply, err
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
func (srv *Server) ServeLogic(l contract.LogicService, tel observability.Telemetry) error {
	s := &service{serviceLogic, srv.rpcx, srv.workers, newTelemetry(tel, "server")}
	return errors.Join(
		handle(s, "Register", l.Register),
		handle(s, "Login", l.Login),
		handle(s, "Logout", l.Logout),
		handle(s, "Authenticate", l.Authenticate),
		handle(s, "Sessions", l.Sessions),
		handle(s, "EndSessions", l.EndSessions),
		handle(s, "CheckSessions", l.CheckSessions),
		handle(s, "ForgetSessions", l.ForgetSessions),
		handle(s, "FindUsers", l.FindUsers),
		handle(s, "CanarySession", l.CanarySession),
		handle(s, "CreateRoom", l.CreateRoom),
		handle(s, "Rooms", l.Rooms),
		handle(s, "Room", l.Room),
		handle(s, "JoinRoom", l.JoinRoom),
		handle(s, "LeaveRoom", l.LeaveRoom),
		handle(s, "Members", l.Members),
		handle(s, "EnterRoom", l.EnterRoom),
		handle(s, "Online", l.Online),
		handle(s, "Announce", l.Announce),
		handle(s, "PresenceChanged", l.PresenceChanged),
		handleBatch(s, "Send", l.AdmitSends, l.Send),
		handle(s, "History", l.History),
		handle(s, "Heads", l.Heads),
		handle(s, "ConversationHeads", l.ConversationHeads),
		handle(s, "DirectHeads", l.DirectHeads),
		handle(s, "Deliveries", l.Deliveries),
		handle(s, "Inbox", l.Inbox),
		handle(s, "MarkRead", l.MarkRead),
		handle(s, "Typing", l.Typing),
		handle(s, "Whereabouts", l.Whereabouts),
	)
}

// ServeConnect answers contract.Connect with c.
func (srv *Server) ServeConnect(c contract.Connect, tel observability.Telemetry) error {
	s := &service{serviceConnect, srv.rpcx, srv.workers, newTelemetry(tel, "server")}
	return errors.Join(
		s.register(methodPush, func(ctx context.Context, r *contract.PushRequest, reply *Reply[contract.PushReply]) error {
			spans := s.startPush(s.name, trace.SpanKindServer, r.Deliveries, "")
			var err error
			*reply, err = do(spans.within(ctx), s, methodPush, r, c.Push)
			spans.end(reply.Value, err)
			return nil
		}),
		handle(s, "CloseSessions", c.CloseSessions),
		handle(s, "LeaveRoom", c.LeaveRoom),
	)
}
