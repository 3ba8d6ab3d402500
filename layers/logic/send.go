package logic

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"gochat/layers/connect/wire"
	"gochat/layers/internal/contract"
	"gochat/observability"
)

func (l *Logic) Send(ctx context.Context, r *contract.SendRequest) (*contract.Receipt, error) {
	receipt, err := l.send(ctx, r)
	if err != nil {
		l.committer.m.refused.WithLabelValues(string(contract.CodeOf(err))).Inc()
	}
	return receipt, err
}

// AdmitSends implements contract.LogicService: there is place for as many as commit.queue.
func (l *Logic) AdmitSends(n int) (done func(), err error) {
	done, err = l.committer.admit(n)
	if err != nil {
		l.committer.m.refused.WithLabelValues(string(contract.CodeOf(err))).Add(float64(n))
	}
	return done, err
}

func (l *Logic) send(ctx context.Context, r *contract.SendRequest) (*contract.Receipt, error) {
	session, err := l.sessions.who(ctx, r.Credential)
	if err != nil {
		return nil, err
	}
	if r.To != 0 && r.From == 0 {
		// The caller did not know which conversation this is, so any node may have got it. Two nodes that number one
		// conversation at once would publish it out of order.
		routed := *r
		routed.From = session.User
		return l.deps.Peers.Send(ctx, &routed)
	}
	if err := checkText(r); err != nil {
		return nil, err
	}
	canary := isCanary(session.Name)
	if !canary { // the rate is people's; canaries keep their own
		if err := l.limits.send(session.User); err != nil {
			return nil, err
		}
	}
	m := contract.Message{From: session.User, FromName: session.Name, Room: r.Room, ClientID: r.ClientID, Text: r.Text}
	switch {
	case r.To < 0 || r.Room < 0:
		return nil, contract.Errorf(contract.BadRequest, "want positive ids")
	case r.To > 0:
		m.To = r.To
		if m.ToName, err = l.names.name(ctx, r.To); err != nil {
			return nil, err
		}
		if isCanary(m.ToName) && m.To != m.From {
			return nil, contract.Errorf(contract.NotFound, "user %d", m.To)
		}
		m.Conversation = contract.DirectConversation(m.From, m.To)
	default:
		if _, err := l.rooms.enter(ctx, r.Room, session.User); err != nil {
			return nil, err
		}
		m.Conversation = contract.RoomConversation(r.Room)
	}
	if m.ID, err = l.deps.IDs.Next(); err != nil {
		return nil, fmt.Errorf("make message id: %w", err)
	}
	m.CreatedAt = now()
	m.Traceparent = observability.Traceparent(ctx)
	stored, err := l.committer.commit(ctx, m, r.Origin)
	if err != nil {
		return nil, err
	}
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		span.SetAttributes(observability.AttrMessageID.String(stored.ID.String()),
			observability.AttrConversation.String(string(stored.Conversation)), observability.AttrSeq.Int64(stored.Seq))
		if stored.ID != m.ID { // the first one's, in another trace
			span.AddLink(trace.Link{SpanContext: observability.SpanContext(stored.Traceparent)})
			span.SetAttributes(attribute.Bool("gochat.duplicate", true))
		}
	}
	if canary && m.To == m.From {
		l.trimCanary(ctx, stored)
	}
	return &contract.Receipt{
		ID: stored.ID, Conversation: stored.Conversation, Seq: stored.Seq, CreatedAt: stored.CreatedAt,
		TraceID: traceID(stored.Traceparent),
	}, nil
}

func checkText(r *contract.SendRequest) error {
	if err := wire.CheckText(r.Text); err != nil {
		return err
	}
	if len(r.ClientID) > contract.MaxClientIDBytes || !utf8.ValidString(r.ClientID) || strings.Contains(r.ClientID, "\x00") {
		return contract.Errorf(contract.BadRequest, "clientId: want at most %d bytes of UTF-8", contract.MaxClientIDBytes)
	}
	return nil
}

// traceID is the 32 hex digits of a traceparent.
func traceID(traceparent string) string {
	if sc := observability.SpanContext(traceparent); sc.IsValid() {
		return sc.TraceID().String()
	}
	return ""
}

// messageDelivery is how a stored message goes to its receivers, its frame encoded here, once.
func messageDelivery(m *contract.Message, origin contract.ConnID, accepted time.Time) contract.Delivery {
	d := contract.Delivery{
		Conversation: m.Conversation, Seq: m.Seq, Message: m.ID, AcceptedAt: accepted,
		Frame: wire.AppendMessage(nil, m), Traceparent: m.Traceparent,
	}
	switch {
	case !m.Direct():
		d.Room = m.Room // also to the one who sent it: that is how the seed's clients see their own messages
	case m.To == m.From:
		d.Users, d.Except = []contract.UserID{m.From}, origin
	default:
		d.Users, d.Except = []contract.UserID{m.To, m.From}, origin
	}
	return d
}

// notice is something that passes and is not stored.
func notice(ctx context.Context, d contract.Delivery) []outgoing {
	d.AcceptedAt, d.Traceparent = time.Now(), observability.Traceparent(ctx)
	d.QueuedAt = d.AcceptedAt
	return []outgoing{outgoingOf(&d, 0)}
}
