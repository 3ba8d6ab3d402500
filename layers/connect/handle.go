package connect

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/trace"

	"gochat/layers/connect/wire"
	"gochat/layers/internal/contract"
	"gochat/observability"
)

// handle acts on one client frame. It is called by the reader alone; what goes wrong is answered with an error
// frame, and only what may not go on ends the connection.
func (c *channel) handle(data []byte) {
	request, err := wire.Decode(data)
	if err != nil {
		c.srv.m.invalid.Inc()
		ctx, span := c.startFrame(context.Background(), &request)
		noteError(span, err)
		c.refuse(ctx, request.ClientID, err)
		span.End()
		return
	}
	m := c.srv.m.ops[request.Op]
	m.frames.Inc()

	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), c.srv.cfg.Timeout)
	defer cancel()
	ctx, span := c.startFrame(ctx, &request)
	defer span.End()
	err = c.act(ctx, &request)
	observability.Observe(m.seconds, time.Since(began).Seconds(), span.SpanContext())
	noteError(span, err)
	switch code := contract.CodeOf(err); {
	case err == nil:
		return
	case code == contract.Unauthenticated && c.who != nil:
		c.end(contract.SessionEnded, endMessage(contract.SessionEnded)) // sooner than the next check finds it
		return
	case code == contract.Internal:
		c.srv.tel.Log.ErrorContext(ctx, "frame not handled", "op", int(request.Op), "err", err)
	}
	c.refuse(ctx, request.ClientID, err)
}

// refuse answers with an error frame, which names the trace of ctx.
func (c *channel) refuse(ctx context.Context, clientID string, err error) {
	e := contract.AsError(err)
	c.srv.m.errors.WithLabelValues(string(e.Code)).Inc()
	traceID := ""
	if span := trace.SpanContextFromContext(ctx); span.HasTraceID() {
		traceID = span.TraceID().String()
	}
	c.send(wire.AppendError(nil, clientID, traceID, e))
}

// act does what the frame asks for.
func (c *channel) act(ctx context.Context, r *wire.Request) error {
	if r.Op == wire.OpAuth {
		return c.auth(ctx, r)
	}
	if c.who != nil && r.AuthToken != "" && contract.SessionOf(r.AuthToken) != c.who.session {
		c.end(contract.Unauthenticated, "the token is not this session's")
		return nil
	}
	switch r.Op {
	case wire.OpPing:
		return c.ping(ctx, r)
	case wire.OpPong:
		return nil
	}
	if c.who == nil {
		return contract.Errorf(contract.Unauthenticated, "authenticate first")
	}
	switch r.Op {
	case wire.OpRoom, wire.OpDirect:
		return c.message(ctx, r)
	case wire.OpEnter:
		return c.enterRoom(ctx, r.Room)
	case wire.OpLeave:
		if c.authRoom == r.Room {
			c.authRoom = 0
		}
		c.leaveRoom(r.Room)
		return nil
	case wire.OpReplay:
		return c.resume(ctx, r.Resume)
	case wire.OpRead:
		_, err := c.srv.logic.MarkRead(ctx, &contract.MarkReadRequest{
			Credential: c.credential(), Conversation: r.Conversation, Seq: r.Seq, Origin: c.id()})
		return err
	case wire.OpTyping:
		_, err := c.srv.logic.Typing(ctx, &contract.TypingRequest{
			Credential: c.credential(), Conversation: r.Conversation, Origin: c.id()})
		return err
	}
	return contract.Errorf(contract.BadRequest, "op %d: not known", r.Op)
}

func (c *channel) credential() contract.Credential {
	return contract.Credential{Session: c.who.session}
}

// auth authenticates the connection or, with the session it already has, moves it to another room.
func (c *channel) auth(ctx context.Context, r *wire.Request) error {
	if c.who != nil && contract.SessionOf(r.AuthToken) != c.who.session {
		c.end(contract.Unauthenticated, "the connection is another session's")
		return nil
	}
	if r.Resume == nil {
		return c.admission(ctx, r)
	}
	// Before the first live message can come, so that none comes before what it follows, or twice.
	if err := c.withhold(r.Resume); err != nil {
		return err
	}
	if err := c.admission(ctx, r); err != nil || c.who == nil {
		c.stopWithholding()
		return err
	}
	return c.resume(ctx, r.Resume)
}

// admission lets the connection into its bucket and the room. Without an error and who still nil, it has ended.
func (c *channel) admission(ctx context.Context, r *wire.Request) error {
	if c.who == nil {
		if err := c.authenticate(ctx, r.AuthToken); err != nil || c.who == nil {
			return err
		}
	}
	if r.Room == 0 {
		return nil
	}
	// The new room first: who may not enter it stays where they are.
	if err := c.enterRoom(ctx, r.Room); err != nil {
		return err
	}
	if c.authRoom != 0 && c.authRoom != r.Room {
		c.leaveRoom(c.authRoom)
	}
	c.authRoom = r.Room
	return nil
}

func (c *channel) authenticate(ctx context.Context, token string) error {
	c.asked.Store(true)
	identity, err := c.srv.logic.Authenticate(ctx, &contract.AuthenticateRequest{Credential: contract.Credential{Token: token}})
	if contract.CodeOf(err) == contract.Unauthenticated {
		c.end(contract.Unauthenticated, "the token is not valid")
		return nil
	}
	if err != nil {
		return err
	}
	w := &who{user: identity.User, name: identity.Name, session: identity.Session}
	if err := c.srv.registrar.arrive(ctx, w, 0); err != nil {
		return err
	}
	c.who, c.bucket = w, c.srv.bucketOf(w.user)
	c.bucket.add(c)
	c.srv.sequencer.arriveUser(w.user) // from now on a push finds the user; before, it answers that it does not
	c.authenticated.Store(true)
	if code := c.srv.endedLately(w.session); code != "" { // after it was looked up, and before the bucket had it
		c.end(code, endMessage(code))
	}
	return nil
}

// maxRooms bounds the rooms of one connection.
const maxRooms = 500

// enterRoom returns once messages to the room come to this connection.
func (c *channel) enterRoom(ctx context.Context, id contract.RoomID) error {
	// Before logic is asked: who is taken out of the room after logic has agreed does not get in.
	member, rooms := c.bucket.prepare(c, id)
	if _, err := c.srv.logic.EnterRoom(ctx, &contract.RoomRequest{Credential: c.credential(), Room: id}); err != nil {
		return err
	}
	if member {
		c.srv.registrar.entered(id) // who asks again wants to be told again
		return nil
	}
	if rooms >= maxRooms {
		return contract.Errorf(contract.TooLarge, "want at most %d rooms on one connection", maxRooms)
	}
	if err := c.srv.arrive(ctx, c.who, id); err != nil {
		return err
	}
	if !c.bucket.join(c, id) {
		c.srv.depart(c.who, id)
		return contract.RetryLater(contract.Unavailable, time.Second, "taken out of room %d meanwhile", id)
	}
	c.srv.registrar.entered(id)
	return nil
}

// leaveRoom takes the connection out of the room, if it is in it. Others than the reader may call it.
func (c *channel) leaveRoom(id contract.RoomID) {
	if c.bucket.leave(c, id) {
		c.srv.depart(c.who, id)
		c.stopReplays([]contract.Conversation{contract.RoomConversation(id)})
	}
}

// message sends to a room or a user and acknowledges what has a clientId or is private: the seed's clients, which
// send to rooms without one, know no acks.
func (c *channel) message(ctx context.Context, r *wire.Request) error {
	send := &contract.SendRequest{
		Credential: c.credential(), From: c.who.user, Room: r.Room, Text: r.Text, ClientID: r.ClientID, Origin: c.id()}
	if r.Op == wire.OpDirect {
		send.To = r.To
	}
	receipt, err := c.srv.logic.Send(ctx, send)
	if err != nil {
		return err
	}
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		span.SetAttributes(observability.AttrMessageID.String(receipt.ID.String()),
			observability.AttrConversation.String(string(receipt.Conversation)), observability.AttrSeq.Int64(receipt.Seq))
	}
	if r.ClientID != "" || r.Op == wire.OpDirect {
		c.send(wire.AppendAck(nil, r.ClientID, receipt))
	}
	return nil
}

// ping answers with the heads of the conversations that are ahead of what the client has.
func (c *channel) ping(ctx context.Context, r *wire.Request) error {
	if r.Have == nil {
		c.send(wire.AppendPong(nil, nil))
		return nil
	}
	if c.who == nil {
		return contract.Errorf(contract.Unauthenticated, "authenticate first")
	}
	named := make([]contract.Conversation, 0, len(r.Have))
	for conversation := range r.Have {
		named = append(named, conversation)
	}
	reply, err := c.srv.logic.Heads(ctx, &contract.HeadsRequest{Credential: c.credential(), Conversations: named})
	if err != nil {
		return err
	}
	ahead := make(map[contract.Conversation]int64)
	for conversation, head := range reply.Heads {
		if head > r.Have[conversation] {
			ahead[conversation] = head
		}
	}
	c.send(wire.AppendPong(nil, ahead))
	return nil
}
