package contract

import (
	"context"
	"time"
)

// Credential proves who calls. Token is what a client holds and is checked in full; Session is for connect, which
// has had the token checked when the connection authenticated and keeps only the session's name. One of the two
// is given.
type Credential struct {
	Token   string
	Session SessionID
}

// Identity is who a credential speaks for.
type Identity struct {
	User      UserID
	Name      string
	Session   SessionID
	Device    string
	ExpiresAt time.Time // slides forward with use
}

// Logic is what the logic layer answers. Every error is, or wraps, an Error. Each call with a credential fails
// with Unauthenticated if the credential is not, or no longer, that of a session.
//
// Every method but Send without a ClientID, CreateRoom, Register and Login may be repeated: the second call has the
// same effect as one.
type Logic interface {
	// Register makes a user and its first session. Conflict if the name is taken; nothing is changed then.
	Register(context.Context, *RegisterRequest) (*SessionGrant, error)
	// Login makes a session. Unauthenticated if the name or the password is wrong, without saying which.
	Login(context.Context, *LoginRequest) (*SessionGrant, error)
	// Logout ends the caller's session and closes its connections on every node.
	Logout(context.Context, *LogoutRequest) (*Empty, error)
	// Authenticate answers who the credential speaks for, and extends the session.
	Authenticate(context.Context, *AuthenticateRequest) (*Identity, error)
	// Sessions lists the caller's sessions.
	Sessions(context.Context, *SessionsRequest) (*SessionsReply, error)
	// EndSessions ends one of the caller's sessions, or all but the caller's own. NotFound if it is not the caller's.
	EndSessions(context.Context, *EndSessionsRequest) (*Empty, error)
	// CheckSessions extends the sessions named and answers which of them have ended. For connect.
	CheckSessions(context.Context, *CheckSessionsRequest) (*CheckSessionsReply, error)
	// ForgetSessions drops sessions that another logic node has ended from this node's cache.
	ForgetSessions(context.Context, *ForgetSessionsRequest) (*Empty, error)
	// FindUsers answers users whose name begins with the given text.
	FindUsers(context.Context, *FindUsersRequest) (*UsersReply, error)
	// CanarySession makes a session of the node's canary, a user of whom there is one for each node id, and who is made
	// when first asked for. It ends the canary's other sessions, as if it had logged in under the single-login policy. Nobody
	// else can log in as a canary, find it or write to it; its conversation with itself keeps only its latest messages.
	// For connect.
	CanarySession(context.Context, *CanarySessionRequest) (*SessionGrant, error)

	// CreateRoom makes a room and the caller its owner and first member.
	CreateRoom(context.Context, *CreateRoomRequest) (*Room, error)
	// Rooms lists public rooms and the caller's private ones.
	Rooms(context.Context, *RoomsRequest) (*RoomsReply, error)
	// Room answers one room. NotFound also for a private room the caller is not a member of.
	Room(context.Context, *RoomRequest) (*Room, error)
	// JoinRoom makes the caller a member. Forbidden for a private room.
	JoinRoom(context.Context, *RoomRequest) (*Empty, error)
	// LeaveRoom ends the caller's membership and, of a private room, takes the caller's connections out of it.
	LeaveRoom(context.Context, *RoomRequest) (*Empty, error)
	// Members lists a room's members by user id.
	Members(context.Context, *MembersRequest) (*MembersReply, error)
	// EnterRoom answers whether the caller's connection may enter: NotFound, Forbidden or the room.
	EnterRoom(context.Context, *RoomRequest) (*Room, error)
	// Online answers who is in the room now.
	Online(context.Context, *RoomRequest) (*OnlineReply, error)
	// Announce has the online count (op 4) or list (op 5) pushed to the room.
	Announce(context.Context, *AnnounceRequest) (*Empty, error)
	// PresenceChanged has an op 5 pushed to each room, gathered with other changes of the same rooms. For connect.
	PresenceChanged(context.Context, *PresenceChangedRequest) (*Empty, error)

	// Send accepts a message: once it answers without an error, the message is stored and will be delivered.
	// The sender is the credential's user. With a ClientID already used by that user, the first message's receipt
	// is answered and nothing else happens.
	Send(context.Context, *SendRequest) (*Receipt, error)
	// History answers messages of one conversation in ascending seq.
	History(context.Context, *HistoryRequest) (*HistoryReply, error)
	// Heads answers the last seq of each of the caller's conversations named that has one.
	Heads(context.Context, *HeadsRequest) (*HeadsReply, error)
	// ConversationHeads answers the last seq of each conversation named that has one, whoever's it is. For connect.
	ConversationHeads(context.Context, *ConversationHeadsRequest) (*HeadsReply, error)
	// DirectHeads answers the last seq of each direct conversation of the users named of which the last message was
	// accepted at Since or later. For connect.
	DirectHeads(context.Context, *DirectHeadsRequest) (*DirectHeadsReply, error)
	// Deliveries answers the deliveries of the messages that follow After in a conversation, whoever's it is, by
	// ascending seq: as logic gives them to the queue, but excepting no connection. For connect.
	Deliveries(context.Context, *DeliveriesRequest) (*DeliveriesReply, error)
	// Inbox lists the caller's conversations, latest message first.
	Inbox(context.Context, *InboxRequest) (*InboxReply, error)
	// MarkRead moves the caller's read mark forward, never back, and tells the caller's other connections.
	MarkRead(context.Context, *MarkReadRequest) (*MarkReadReply, error)
	// Typing tells the conversation that the caller types. Nothing is stored.
	Typing(context.Context, *TypingRequest) (*Empty, error)
}

// MaxSends is how many Sends come together at most.
const MaxSends = 256

// LogicService is Logic as a node of the layer serves it.
type LogicService interface {
	Logic
	// AdmitSends says at once whether n Sends that came together may go on: all of them, or Unavailable for all. They
	// hold their places until done is called.
	AdmitSends(n int) (done func(), err error)
	// Whereabouts answers what the node knows of a message. It fails only where it cannot answer at all: a database that
	// is away is part of the answer.
	Whereabouts(context.Context, *WhereaboutsRequest) (*LogicWhereabouts, error)
}

// Empty is an answer that has nothing to say but that it was done.
type Empty struct{}

type RegisterRequest struct{ Name, Password, Device string }

type LoginRequest struct{ Name, Password, Device string }

// SessionGrant is the only answer that ever carries a token.
type SessionGrant struct {
	Token     string
	User      UserID
	Name      string
	ExpiresAt time.Time
}

type LogoutRequest struct{ Credential Credential }

type AuthenticateRequest struct{ Credential Credential }

type SessionsRequest struct{ Credential Credential }

type SessionsReply struct{ Sessions []SessionInfo }

// SessionInfo is one session as its user may see it.
type SessionInfo struct {
	ID        SessionID
	Device    string
	CreatedAt time.Time
	ExpiresAt time.Time
	Current   bool // it is the one that asks
}

type EndSessionsRequest struct {
	Credential Credential
	Session    SessionID // "" ends all others
}

type CheckSessionsRequest struct{ Sessions []SessionID }

type CheckSessionsReply struct{ Ended []SessionID }

type ForgetSessionsRequest struct{ Sessions []SessionID }

type FindUsersRequest struct {
	Credential Credential
	Name       string // the beginning of the name
	Limit      int    // 1 to MaxPage; 0 is 20
}

// User is a person as others may see them.
type User struct {
	ID   UserID
	Name string
}

type UsersReply struct{ Users []User }

// CanarySessionRequest names a connect node: "connect-17".
type CanarySessionRequest struct{ Node NodeID }

type CreateRoomRequest struct {
	Credential Credential
	Name       string
	Private    bool
}

type Room struct {
	ID        RoomID
	Name      string
	Private   bool
	Owner     UserID // 0 for the lobby
	CreatedAt time.Time
	Member    bool // the caller is a member
}

type RoomsRequest struct {
	Credential Credential
	Query      string // a part of the name, in any case; "" is every room
	After      RoomID // rooms with a higher id: the next page
	Limit      int    // 1 to MaxPage; 0 is 50
}

type RoomsReply struct {
	Rooms []Room
	More  bool
}

type RoomRequest struct {
	Credential Credential
	Room       RoomID
}

type MembersRequest struct {
	Credential Credential
	Room       RoomID
	After      UserID // members with a higher id: the next page
	Limit      int    // 1 to MaxPage; 0 is 50
}

type MembersReply struct {
	Members []User
	More    bool
}

type OnlineReply struct {
	Room  RoomID
	Count int    // users, however many connections each has
	Users []User // at most MaxOnlineNames, by id
}

type AnnounceRequest struct {
	Credential Credential
	Room       RoomID
	Names      bool // op 5, who is online; else op 4, how many
}

type PresenceChangedRequest struct{ Rooms []RoomID }

// SendRequest goes to a room, or to a user if To is not 0.
type SendRequest struct {
	Credential Credential
	From       UserID // where to route it, if the caller knows the credential's user; never who it is from
	Room       RoomID // with To: carried in the frame, not checked
	To         UserID
	Text       string
	ClientID   string
	Origin     ConnID // the connection that sent it and is answered by an ack
}

// Receipt is the proof that a message is stored.
type Receipt struct {
	ID           MessageID
	Conversation Conversation
	Seq          int64
	CreatedAt    time.Time
	TraceID      string // 32 hex digits, "" if the request had no trace
}

// HistoryRequest asks for what follows After, or, if Before is not 0, for what precedes Before.
type HistoryRequest struct {
	Credential    Credential
	Conversation  Conversation
	With          UserID // the direct conversation with that user, instead of Conversation
	After, Before int64
	Limit         int // 1 to MaxPage; 0 is 50
}

type HistoryReply struct {
	Messages []Message
	More     bool // there are further ones in the direction asked for
}

type HeadsRequest struct {
	Credential    Credential
	Conversations []Conversation // at most MaxResume
}

type HeadsReply struct{ Heads map[Conversation]int64 }

type ConversationHeadsRequest struct {
	Conversations []Conversation // at most MaxHeads
}

type DirectHeadsRequest struct {
	Users []UserSince // at most MaxHeads
}

// UserSince is a user, and from when on what happens to the user matters.
type UserSince struct {
	User  UserID
	Since time.Time
}

type DirectHeadsReply struct{ Heads []UserHead }

// UserHead is how far a conversation of the user has come.
type UserHead struct {
	User         UserID
	Conversation Conversation
	Last         int64
}

type DeliveriesRequest struct {
	Conversation Conversation
	After        int64
	// Since, unless it is zero, stands for After: what follows the last message below Before that was accepted before
	// Since, or everything if there is none.
	Since  time.Time
	Before int64
	Limit  int // 1 to MaxPage
}

type DeliveriesReply struct{ Deliveries []Delivery }

type InboxRequest struct {
	Credential Credential
	Limit      int // 1 to MaxPage; 0 is 50
}

// InboxEntry is one conversation of a user. Own messages are never unread.
type InboxEntry struct {
	Conversation Conversation
	LastSeq      int64
	ReadSeq      int64
	Unread       int64
	Last         *Message // nil if nothing was said yet
}

type InboxReply struct{ Entries []InboxEntry }

type MarkReadRequest struct {
	Credential   Credential
	Conversation Conversation
	Seq          int64
	Origin       ConnID
}

// MarkReadReply has the mark after the call: the highest ever set.
type MarkReadReply struct{ Seq int64 }

type TypingRequest struct {
	Credential   Credential
	Conversation Conversation
	Origin       ConnID
}
