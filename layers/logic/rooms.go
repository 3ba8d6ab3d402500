package logic

import (
	"context"
	"fmt"
	"math"

	"gochat/layers/internal/contract"
)

// callerInRoom answers who calls, if they may be in the room: NotFound or Forbidden if not.
func (l *Logic) callerInRoom(ctx context.Context, c contract.Credential, room contract.RoomID) (contract.Session, error) {
	session, err := l.sessions.who(ctx, c)
	if err == nil {
		_, err = l.rooms.enter(ctx, room, session.User)
	}
	return session, err
}

func (l *Logic) CreateRoom(ctx context.Context, r *contract.CreateRoomRequest) (*contract.Room, error) {
	session, err := l.sessions.who(ctx, r.Credential)
	if err != nil {
		return nil, err
	}
	if err := checkName("name", r.Name, contract.MaxRoomNameBytes); err != nil {
		return nil, err
	}
	if err := l.limits.send(session.User); err != nil {
		return nil, err
	}
	room, err := l.deps.Store.CreateRoom(ctx, r.Name, r.Private, session.User, now())
	if err != nil {
		return nil, fmt.Errorf("create room: %w", err)
	}
	return &room, nil
}

func (l *Logic) Rooms(ctx context.Context, r *contract.RoomsRequest) (*contract.RoomsReply, error) {
	session, limit, err := l.callerAndPage(ctx, r.Credential, r.Limit, 50)
	if err != nil {
		return nil, err
	}
	if len(r.Query) > contract.MaxRoomNameBytes {
		return nil, contract.Errorf(contract.BadRequest, "query: want at most %d bytes", contract.MaxRoomNameBytes)
	}
	rooms, more, err := l.deps.Store.Rooms(ctx, session.User, r.Query, r.After, limit)
	if err != nil {
		return nil, fmt.Errorf("list rooms: %w", err)
	}
	return &contract.RoomsReply{Rooms: rooms, More: more}, nil
}

// Room is answered from the database: unlike EnterRoom it says whether the caller is a member of a public room.
func (l *Logic) Room(ctx context.Context, r *contract.RoomRequest) (*contract.Room, error) {
	session, err := l.sessions.who(ctx, r.Credential)
	if err != nil {
		return nil, err
	}
	room, err := l.deps.Store.Room(ctx, r.Room, session.User)
	if err != nil {
		return nil, fmt.Errorf("load room: %w", err)
	}
	if room.Private && !room.Member {
		return nil, contract.Errorf(contract.NotFound, "room %d does not exist", r.Room)
	}
	return &room, nil
}

func (l *Logic) JoinRoom(ctx context.Context, r *contract.RoomRequest) (*contract.Empty, error) {
	session, err := l.sessions.who(ctx, r.Credential)
	if err != nil {
		return nil, err
	}
	room, err := l.deps.Store.Room(ctx, r.Room, session.User)
	switch {
	case err != nil:
		return nil, fmt.Errorf("load room: %w", err)
	case room.Member:
		return &contract.Empty{}, nil
	case room.Private:
		return nil, contract.Errorf(contract.Forbidden, "room %d is private", r.Room)
	}
	// What was said before is not unread: the mark stops at the last message. It is set before the membership, so
	// that a call that fails between the two is repeated as a whole.
	if _, err := l.deps.Store.MarkRead(ctx, session.User, contract.RoomConversation(r.Room), math.MaxInt64); err != nil {
		return nil, fmt.Errorf("store read mark: %w", err)
	}
	if err := l.deps.Store.Join(ctx, r.Room, session.User, now()); err != nil {
		return nil, fmt.Errorf("join room: %w", err)
	}
	return &contract.Empty{}, nil
}

func (l *Logic) LeaveRoom(ctx context.Context, r *contract.RoomRequest) (*contract.Empty, error) {
	session, err := l.sessions.who(ctx, r.Credential)
	if err != nil {
		return nil, err
	}
	room, err := l.deps.Store.Room(ctx, r.Room, session.User)
	if err != nil {
		return nil, fmt.Errorf("load room: %w", err)
	}
	if err := l.deps.Store.Leave(ctx, r.Room, session.User); err != nil {
		return nil, fmt.Errorf("leave room: %w", err)
	}
	l.rooms.drop(r.Room, session.User)
	if room.Private {
		// The membership has ended; a node that was not told still sends the room. The call may be repeated.
		if _, err := l.deps.Connects.LeaveRoom(ctx, &contract.NodeLeaveRoomRequest{User: session.User, Room: r.Room}); err != nil {
			return nil, fmt.Errorf("take connections out of the room: %w", err)
		}
	}
	return &contract.Empty{}, nil
}

func (l *Logic) Members(ctx context.Context, r *contract.MembersRequest) (*contract.MembersReply, error) {
	if _, err := l.callerInRoom(ctx, r.Credential, r.Room); err != nil {
		return nil, err
	}
	limit, err := page(r.Limit, 50)
	if err != nil {
		return nil, err
	}
	members, more, err := l.deps.Store.Members(ctx, r.Room, r.After, limit)
	if err != nil {
		return nil, fmt.Errorf("list members: %w", err)
	}
	return &contract.MembersReply{Members: members, More: more}, nil
}

func (l *Logic) EnterRoom(ctx context.Context, r *contract.RoomRequest) (*contract.Room, error) {
	session, err := l.sessions.who(ctx, r.Credential)
	if err != nil {
		return nil, err
	}
	room, err := l.rooms.enter(ctx, r.Room, session.User)
	if err == nil && room.Private {
		// Not from memory: the connection is in from then on, and a membership that ended a moment ago must not let it in.
		room, err = l.rooms.enterAnew(ctx, r.Room, session.User)
	}
	if err != nil {
		return nil, err
	}
	return &room, nil
}

func (l *Logic) Online(ctx context.Context, r *contract.RoomRequest) (*contract.OnlineReply, error) {
	if _, err := l.callerInRoom(ctx, r.Credential, r.Room); err != nil {
		return nil, err
	}
	return l.presence.online(ctx, r.Room)
}

func (l *Logic) Announce(ctx context.Context, r *contract.AnnounceRequest) (*contract.Empty, error) {
	session, err := l.callerInRoom(ctx, r.Credential, r.Room)
	if err != nil {
		return nil, err
	}
	if err := l.limits.send(session.User); err != nil {
		return nil, err
	}
	if err := l.presence.announce(ctx, r.Room, r.Names); err != nil {
		return nil, fmt.Errorf("announce: %w", err)
	}
	return &contract.Empty{}, nil
}

func (l *Logic) PresenceChanged(_ context.Context, r *contract.PresenceChangedRequest) (*contract.Empty, error) {
	l.presence.changed(r.Rooms)
	return &contract.Empty{}, nil
}
