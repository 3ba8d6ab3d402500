package rpc

import (
	"context"

	"gochat/layers/internal/contract"
)

// scripted is a Logic and a Connect whose every method asks reply, which knows the method by its name. A nil answer
// is the zero value.
type scripted struct {
	admitting
	reply func(ctx context.Context, method string, request any) (any, error)
}

func ask[R any](ctx context.Context, s *scripted, method string, request any) (*R, error) {
	answer, err := s.reply(ctx, method, request)
	if err != nil {
		return nil, err
	}
	if answer == nil {
		return new(R), nil
	}
	return answer.(*R), nil
}

func (s *scripted) Register(ctx context.Context, r *contract.RegisterRequest) (*contract.SessionGrant, error) {
	return ask[contract.SessionGrant](ctx, s, "Register", r)
}

func (s *scripted) Login(ctx context.Context, r *contract.LoginRequest) (*contract.SessionGrant, error) {
	return ask[contract.SessionGrant](ctx, s, "Login", r)
}

func (s *scripted) Logout(ctx context.Context, r *contract.LogoutRequest) (*contract.Empty, error) {
	return ask[contract.Empty](ctx, s, "Logout", r)
}

func (s *scripted) Authenticate(ctx context.Context, r *contract.AuthenticateRequest) (*contract.Identity, error) {
	return ask[contract.Identity](ctx, s, "Authenticate", r)
}

func (s *scripted) Sessions(ctx context.Context, r *contract.SessionsRequest) (*contract.SessionsReply, error) {
	return ask[contract.SessionsReply](ctx, s, "Sessions", r)
}

func (s *scripted) EndSessions(ctx context.Context, r *contract.EndSessionsRequest) (*contract.Empty, error) {
	return ask[contract.Empty](ctx, s, "EndSessions", r)
}

func (s *scripted) CheckSessions(ctx context.Context, r *contract.CheckSessionsRequest) (*contract.CheckSessionsReply, error) {
	return ask[contract.CheckSessionsReply](ctx, s, "CheckSessions", r)
}

func (s *scripted) ForgetSessions(ctx context.Context, r *contract.ForgetSessionsRequest) (*contract.Empty, error) {
	return ask[contract.Empty](ctx, s, "ForgetSessions", r)
}

func (s *scripted) FindUsers(ctx context.Context, r *contract.FindUsersRequest) (*contract.UsersReply, error) {
	return ask[contract.UsersReply](ctx, s, "FindUsers", r)
}

func (s *scripted) CanarySession(ctx context.Context, r *contract.CanarySessionRequest) (*contract.SessionGrant, error) {
	return ask[contract.SessionGrant](ctx, s, "CanarySession", r)
}

func (s *scripted) CreateRoom(ctx context.Context, r *contract.CreateRoomRequest) (*contract.Room, error) {
	return ask[contract.Room](ctx, s, "CreateRoom", r)
}

func (s *scripted) Rooms(ctx context.Context, r *contract.RoomsRequest) (*contract.RoomsReply, error) {
	return ask[contract.RoomsReply](ctx, s, "Rooms", r)
}

func (s *scripted) Room(ctx context.Context, r *contract.RoomRequest) (*contract.Room, error) {
	return ask[contract.Room](ctx, s, "Room", r)
}

func (s *scripted) JoinRoom(ctx context.Context, r *contract.RoomRequest) (*contract.Empty, error) {
	return ask[contract.Empty](ctx, s, "JoinRoom", r)
}

func (s *scripted) LeaveRoom(ctx context.Context, r *contract.RoomRequest) (*contract.Empty, error) {
	return ask[contract.Empty](ctx, s, "LeaveRoom", r)
}

func (s *scripted) Members(ctx context.Context, r *contract.MembersRequest) (*contract.MembersReply, error) {
	return ask[contract.MembersReply](ctx, s, "Members", r)
}

func (s *scripted) EnterRoom(ctx context.Context, r *contract.RoomRequest) (*contract.Room, error) {
	return ask[contract.Room](ctx, s, "EnterRoom", r)
}

func (s *scripted) Online(ctx context.Context, r *contract.RoomRequest) (*contract.OnlineReply, error) {
	return ask[contract.OnlineReply](ctx, s, "Online", r)
}

func (s *scripted) Announce(ctx context.Context, r *contract.AnnounceRequest) (*contract.Empty, error) {
	return ask[contract.Empty](ctx, s, "Announce", r)
}

func (s *scripted) PresenceChanged(ctx context.Context, r *contract.PresenceChangedRequest) (*contract.Empty, error) {
	return ask[contract.Empty](ctx, s, "PresenceChanged", r)
}

func (s *scripted) Send(ctx context.Context, r *contract.SendRequest) (*contract.Receipt, error) {
	return ask[contract.Receipt](ctx, s, "Send", r)
}

func (s *scripted) History(ctx context.Context, r *contract.HistoryRequest) (*contract.HistoryReply, error) {
	return ask[contract.HistoryReply](ctx, s, "History", r)
}

func (s *scripted) Heads(ctx context.Context, r *contract.HeadsRequest) (*contract.HeadsReply, error) {
	return ask[contract.HeadsReply](ctx, s, "Heads", r)
}

func (s *scripted) DirectHeads(ctx context.Context, r *contract.DirectHeadsRequest) (*contract.DirectHeadsReply, error) {
	return ask[contract.DirectHeadsReply](ctx, s, "DirectHeads", r)
}

func (s *scripted) ConversationHeads(ctx context.Context, r *contract.ConversationHeadsRequest) (*contract.HeadsReply, error) {
	return ask[contract.HeadsReply](ctx, s, "ConversationHeads", r)
}

func (s *scripted) Deliveries(ctx context.Context, r *contract.DeliveriesRequest) (*contract.DeliveriesReply, error) {
	return ask[contract.DeliveriesReply](ctx, s, "Deliveries", r)
}

func (s *scripted) Inbox(ctx context.Context, r *contract.InboxRequest) (*contract.InboxReply, error) {
	return ask[contract.InboxReply](ctx, s, "Inbox", r)
}

func (s *scripted) MarkRead(ctx context.Context, r *contract.MarkReadRequest) (*contract.MarkReadReply, error) {
	return ask[contract.MarkReadReply](ctx, s, "MarkRead", r)
}

func (s *scripted) Typing(ctx context.Context, r *contract.TypingRequest) (*contract.Empty, error) {
	return ask[contract.Empty](ctx, s, "Typing", r)
}

// nodeScript is scripted as a Connect.
type nodeScript scripted

func (s *nodeScript) Push(ctx context.Context, r *contract.PushRequest) (*contract.PushReply, error) {
	return ask[contract.PushReply](ctx, (*scripted)(s), "Push", r)
}

func (s *nodeScript) CloseSessions(ctx context.Context, r *contract.CloseSessionsRequest) (*contract.Empty, error) {
	return ask[contract.Empty](ctx, (*scripted)(s), "CloseSessions", r)
}

func (s *nodeScript) LeaveRoom(ctx context.Context, r *contract.NodeLeaveRoomRequest) (*contract.Empty, error) {
	return ask[contract.Empty](ctx, (*scripted)(s), "LeaveRoom", r)
}
