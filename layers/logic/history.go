package logic

import (
	"context"
	"fmt"

	"gochat/layers/connect/wire"
	"gochat/layers/internal/contract"
)

// mayRead reports whether the session's user may read the conversation: NotFound or Forbidden if not.
func (l *Logic) mayRead(ctx context.Context, user contract.UserID, c contract.Conversation) (contract.Parties, error) {
	parties, err := c.Parse()
	if err != nil {
		return parties, err
	}
	if parties.Room != 0 {
		_, err = l.rooms.enter(ctx, parties.Room, user)
		return parties, err
	}
	if !parties.Includes(user) {
		return parties, contract.Errorf(contract.Forbidden, "conversation %s is not yours", c)
	}
	return parties, nil
}

func (l *Logic) History(ctx context.Context, r *contract.HistoryRequest) (*contract.HistoryReply, error) {
	session, err := l.sessions.who(ctx, r.Credential)
	if err != nil {
		return nil, err
	}
	conversation := r.Conversation
	if r.With != 0 {
		conversation = contract.DirectConversation(session.User, r.With)
	}
	parties, err := l.mayRead(ctx, session.User, conversation)
	if err != nil {
		return nil, err
	}
	if parties.Room == 0 {
		if _, err := l.names.name(ctx, parties.Other(session.User)); err != nil {
			return nil, err
		}
	}
	if r.After < 0 || r.Before < 0 || r.After > 0 && r.Before > 0 {
		return nil, contract.Errorf(contract.BadRequest, "want after or before, a positive seq")
	}
	limit, err := page(r.Limit, 50)
	if err != nil {
		return nil, err
	}
	messages, more, err := l.deps.Store.History(ctx, conversation, r.After, r.Before, limit)
	if err != nil {
		return nil, fmt.Errorf("load history: %w", err)
	}
	return &contract.HistoryReply{Messages: messages, More: more}, nil
}

// Heads passes over conversations that the caller may not read.
func (l *Logic) Heads(ctx context.Context, r *contract.HeadsRequest) (*contract.HeadsReply, error) {
	session, err := l.sessions.who(ctx, r.Credential)
	if err != nil {
		return nil, err
	}
	if len(r.Conversations) > contract.MaxResume {
		return nil, contract.Errorf(contract.BadRequest, "want at most %d conversations", contract.MaxResume)
	}
	var readable []contract.Conversation
	for _, c := range r.Conversations {
		switch _, err := l.mayRead(ctx, session.User, c); contract.CodeOf(err) {
		case "":
			readable = append(readable, c)
		case contract.NotFound, contract.Forbidden:
		default:
			return nil, err
		}
	}
	if len(readable) == 0 {
		return &contract.HeadsReply{}, nil
	}
	heads, err := l.deps.Store.Heads(ctx, readable)
	if err != nil {
		return nil, fmt.Errorf("load heads: %w", err)
	}
	return &contract.HeadsReply{Heads: heads}, nil
}

func (l *Logic) Inbox(ctx context.Context, r *contract.InboxRequest) (*contract.InboxReply, error) {
	session, limit, err := l.callerAndPage(ctx, r.Credential, r.Limit, 50)
	if err != nil {
		return nil, err
	}
	entries, err := l.deps.Store.Inbox(ctx, session.User, limit)
	if err != nil {
		return nil, fmt.Errorf("load inbox: %w", err)
	}
	return &contract.InboxReply{Entries: entries}, nil
}

func (l *Logic) MarkRead(ctx context.Context, r *contract.MarkReadRequest) (*contract.MarkReadReply, error) {
	session, err := l.sessions.who(ctx, r.Credential)
	if err != nil {
		return nil, err
	}
	if _, err := l.mayRead(ctx, session.User, r.Conversation); err != nil {
		return nil, err
	}
	if r.Seq < 0 {
		return nil, contract.Errorf(contract.BadRequest, "seq: want 0 or more")
	}
	if err := l.limits.send(session.User); err != nil {
		return nil, err
	}
	seq, err := l.deps.Store.MarkRead(ctx, session.User, r.Conversation, r.Seq)
	if err != nil {
		return nil, fmt.Errorf("store read mark: %w", err)
	}
	l.notify(ctx, contract.Delivery{
		Conversation: r.Conversation, Users: []contract.UserID{session.User}, Except: r.Origin,
		Frame: wire.AppendRead(nil, r.Conversation, seq),
	})
	return &contract.MarkReadReply{Seq: seq}, nil
}

func (l *Logic) Typing(ctx context.Context, r *contract.TypingRequest) (*contract.Empty, error) {
	session, err := l.sessions.who(ctx, r.Credential)
	if err != nil {
		return nil, err
	}
	parties, err := l.mayRead(ctx, session.User, r.Conversation)
	if err != nil {
		return nil, err
	}
	if err := l.limits.send(session.User); err != nil {
		return nil, err
	}
	d := contract.Delivery{
		Conversation: r.Conversation, Room: parties.Room, Except: r.Origin,
		Frame: wire.AppendTyping(nil, r.Conversation, session.User, session.Name),
	}
	if parties.Room == 0 {
		d.Users = []contract.UserID{parties.Other(session.User)}
	}
	l.notify(ctx, d)
	return &contract.Empty{}, nil
}

// notify pushes something that passes. If the queue does not take it, it is gone, which is what passing means.
func (l *Logic) notify(ctx context.Context, d contract.Delivery) {
	if err := l.entrance.send(ctx, notice(ctx, d)); err != nil {
		l.tel.Log.DebugContext(ctx, "notice not published", "err", err)
	}
}
