package rpc

import (
	"context"

	"gochat/layers/internal/contract"
)

var _ contract.Logic = (*Logic)(nil)

// Logic is contract.Logic as answered by whichever logic node suits the call: what concerns a conversation goes
// to the node that its hash prefers, so that its order is natural.
type Logic struct {
	*caller
	sends *batcher[contract.SendRequest, contract.Receipt]
}

// Logic calls the logic nodes that peers names.
func (c *Clients) Logic(peers Peers) *Logic {
	caller := c.caller(serviceLogic, peers)
	return &Logic{caller, newBatcher[contract.SendRequest, contract.Receipt](caller, "Send")}
}

// once and repeat say whether a call that failed on its way is tried again.
const (
	once   = false
	repeat = true
)

func (l *Logic) Register(ctx context.Context, r *contract.RegisterRequest) (*contract.SessionGrant, error) {
	return call[contract.RegisterRequest, contract.SessionGrant](ctx, l.caller, "Register", "", once, r)
}

func (l *Logic) Login(ctx context.Context, r *contract.LoginRequest) (*contract.SessionGrant, error) {
	return call[contract.LoginRequest, contract.SessionGrant](ctx, l.caller, "Login", "", once, r)
}

func (l *Logic) Logout(ctx context.Context, r *contract.LogoutRequest) (*contract.Empty, error) {
	return call[contract.LogoutRequest, contract.Empty](ctx, l.caller, "Logout", "", repeat, r)
}

func (l *Logic) Authenticate(ctx context.Context, r *contract.AuthenticateRequest) (*contract.Identity, error) {
	return call[contract.AuthenticateRequest, contract.Identity](ctx, l.caller, "Authenticate", "", repeat, r)
}

func (l *Logic) Sessions(ctx context.Context, r *contract.SessionsRequest) (*contract.SessionsReply, error) {
	return call[contract.SessionsRequest, contract.SessionsReply](ctx, l.caller, "Sessions", "", repeat, r)
}

func (l *Logic) EndSessions(ctx context.Context, r *contract.EndSessionsRequest) (*contract.Empty, error) {
	return call[contract.EndSessionsRequest, contract.Empty](ctx, l.caller, "EndSessions", "", repeat, r)
}

func (l *Logic) CheckSessions(ctx context.Context, r *contract.CheckSessionsRequest) (*contract.CheckSessionsReply, error) {
	return call[contract.CheckSessionsRequest, contract.CheckSessionsReply](ctx, l.caller, "CheckSessions", "", repeat, r)
}

// ForgetSessions has every logic node forget the sessions. A node that cannot be reached is passed over: its cache
// is bounded in time.
func (l *Logic) ForgetSessions(ctx context.Context, r *contract.ForgetSessionsRequest) (*contract.Empty, error) {
	return broadcast[contract.ForgetSessionsRequest](ctx, l.caller, "ForgetSessions", r)
}

func (l *Logic) FindUsers(ctx context.Context, r *contract.FindUsersRequest) (*contract.UsersReply, error) {
	return call[contract.FindUsersRequest, contract.UsersReply](ctx, l.caller, "FindUsers", "", repeat, r)
}

func (l *Logic) CanarySession(ctx context.Context, r *contract.CanarySessionRequest) (*contract.SessionGrant, error) {
	return call[contract.CanarySessionRequest, contract.SessionGrant](ctx, l.caller, "CanarySession", "", repeat, r)
}

func (l *Logic) CreateRoom(ctx context.Context, r *contract.CreateRoomRequest) (*contract.Room, error) {
	return call[contract.CreateRoomRequest, contract.Room](ctx, l.caller, "CreateRoom", "", once, r)
}

func (l *Logic) Rooms(ctx context.Context, r *contract.RoomsRequest) (*contract.RoomsReply, error) {
	return call[contract.RoomsRequest, contract.RoomsReply](ctx, l.caller, "Rooms", "", repeat, r)
}

func (l *Logic) Room(ctx context.Context, r *contract.RoomRequest) (*contract.Room, error) {
	return call[contract.RoomRequest, contract.Room](ctx, l.caller, "Room", "", repeat, r)
}

func (l *Logic) JoinRoom(ctx context.Context, r *contract.RoomRequest) (*contract.Empty, error) {
	return call[contract.RoomRequest, contract.Empty](ctx, l.caller, "JoinRoom", "", repeat, r)
}

func (l *Logic) LeaveRoom(ctx context.Context, r *contract.RoomRequest) (*contract.Empty, error) {
	return call[contract.RoomRequest, contract.Empty](ctx, l.caller, "LeaveRoom", "", repeat, r)
}

func (l *Logic) Members(ctx context.Context, r *contract.MembersRequest) (*contract.MembersReply, error) {
	return call[contract.MembersRequest, contract.MembersReply](ctx, l.caller, "Members", "", repeat, r)
}

func (l *Logic) EnterRoom(ctx context.Context, r *contract.RoomRequest) (*contract.Room, error) {
	return call[contract.RoomRequest, contract.Room](ctx, l.caller, "EnterRoom", "", repeat, r)
}

func (l *Logic) Online(ctx context.Context, r *contract.RoomRequest) (*contract.OnlineReply, error) {
	return call[contract.RoomRequest, contract.OnlineReply](ctx, l.caller, "Online", "", repeat, r)
}

func (l *Logic) Announce(ctx context.Context, r *contract.AnnounceRequest) (*contract.Empty, error) {
	return call[contract.AnnounceRequest, contract.Empty](ctx, l.caller, "Announce", "", repeat, r)
}

// PresenceChanged goes by turns of its first room, so that one node gathers what happens in it.
func (l *Logic) PresenceChanged(ctx context.Context, r *contract.PresenceChangedRequest) (*contract.Empty, error) {
	key := ""
	if len(r.Rooms) > 0 {
		key = string(contract.RoomConversation(r.Rooms[0]))
	}
	return call[contract.PresenceChangedRequest, contract.Empty](ctx, l.caller, "PresenceChanged", key, repeat, r)
}

// Send may be repeated if the message has a ClientID, by which the store knows it again.
func (l *Logic) Send(ctx context.Context, r *contract.SendRequest) (*contract.Receipt, error) {
	key := contract.RoomConversation(r.Room)
	if r.To != 0 {
		// With From unknown the two directions may be accepted by two nodes, each keeping its sender's order.
		key = contract.DirectConversation(max(r.From, 0), r.To)
	}
	by := l.sends.exchange
	if r.To != 0 && r.From == 0 {
		by = l.sends.exchangeAlone // it is passed on to another node, which may take longer than the others
	}
	return callBy(ctx, l.caller, "Send", string(key), r.ClientID != "", r, by)
}

func (l *Logic) History(ctx context.Context, r *contract.HistoryRequest) (*contract.HistoryReply, error) {
	return call[contract.HistoryRequest, contract.HistoryReply](ctx, l.caller, "History", "", repeat, r)
}

func (l *Logic) Heads(ctx context.Context, r *contract.HeadsRequest) (*contract.HeadsReply, error) {
	return call[contract.HeadsRequest, contract.HeadsReply](ctx, l.caller, "Heads", "", repeat, r)
}

func (l *Logic) ConversationHeads(ctx context.Context, r *contract.ConversationHeadsRequest) (*contract.HeadsReply, error) {
	return call[contract.ConversationHeadsRequest, contract.HeadsReply](ctx, l.caller, "ConversationHeads", "", repeat, r)
}

func (l *Logic) DirectHeads(ctx context.Context, r *contract.DirectHeadsRequest) (*contract.DirectHeadsReply, error) {
	return call[contract.DirectHeadsRequest, contract.DirectHeadsReply](ctx, l.caller, "DirectHeads", "", repeat, r)
}

func (l *Logic) Deliveries(ctx context.Context, r *contract.DeliveriesRequest) (*contract.DeliveriesReply, error) {
	return call[contract.DeliveriesRequest, contract.DeliveriesReply](ctx, l.caller, "Deliveries", "", repeat, r)
}

func (l *Logic) Inbox(ctx context.Context, r *contract.InboxRequest) (*contract.InboxReply, error) {
	return call[contract.InboxRequest, contract.InboxReply](ctx, l.caller, "Inbox", "", repeat, r)
}

func (l *Logic) MarkRead(ctx context.Context, r *contract.MarkReadRequest) (*contract.MarkReadReply, error) {
	return call[contract.MarkReadRequest, contract.MarkReadReply](ctx, l.caller, "MarkRead", "", repeat, r)
}

func (l *Logic) Typing(ctx context.Context, r *contract.TypingRequest) (*contract.Empty, error) {
	return call[contract.TypingRequest, contract.Empty](ctx, l.caller, "Typing", "", repeat, r)
}
