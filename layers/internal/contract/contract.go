// Package contract is what the layers say to one another: identities, messages, the two interfaces that cross a
// process boundary, and the errors that survive the crossing. It imports the standard library alone, so that no
// vendor's type can leak from one layer into another.
package contract

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// UserID identifies a person. It is positive; 0 is nobody.
type UserID int64

// RoomID identifies a room. It is positive; 0 is no room.
type RoomID int64

// Lobby is the public room that always exists.
const Lobby RoomID = 1

// MessageID is a snowflake: unique over all nodes, roughly ascending in time. It is a string in JSON, since it
// exceeds the integers that a browser can hold.
type MessageID int64

func (id MessageID) String() string { return strconv.FormatInt(int64(id), 10) }

// SessionID is the lower-case hex SHA-256 of a session's token. It names a session without giving access to it.
type SessionID string

// NodeID names one layer of one process, "connect-17". The number is leased, so it may be used again by a later
// process: what tells the two apart is the epoch.
type NodeID string

// NodeRef is one life of a node. A route that carries it is valid exactly as long as that life.
type NodeRef struct {
	ID    NodeID
	Epoch int64 // the etcd revision of the node's registration: a later life has a higher one
}

// String is "connect-17@421", the form kept in routes.
func (n NodeRef) String() string { return string(n.ID) + "@" + strconv.FormatInt(n.Epoch, 10) }

// ParseNodeRef reads what String wrote.
func ParseNodeRef(s string) (NodeRef, error) {
	id, epoch, found := strings.Cut(s, "@")
	n, err := strconv.ParseInt(epoch, 10, 64)
	if !found || id == "" || err != nil || n <= 0 {
		return NodeRef{}, fmt.Errorf("parse node reference %q: want node@epoch", s)
	}
	return NodeRef{ID: NodeID(id), Epoch: n}, nil
}

// ConnID names one connection of one life of a connect node; "" is none, as for a message sent by REST.
type ConnID string

// Service names under which the layers register, in discovery and in rpc.
const (
	LayerAPI     = "api"
	LayerLogic   = "logic"
	LayerConnect = "connect"
	LayerTask    = "task"
	LayerSite    = "site"
)

// Conversation is where messages are numbered: "room:42", or "dm:3:17" with the smaller user id first.
type Conversation string

// RoomConversation is the conversation of a room.
func RoomConversation(room RoomID) Conversation {
	return Conversation("room:" + strconv.FormatInt(int64(room), 10))
}

// DirectConversation is the conversation of two users, the same whichever is named first. Both may be one user,
// who keeps notes.
func DirectConversation(a, b UserID) Conversation {
	if b < a {
		a, b = b, a
	}
	return Conversation("dm:" + strconv.FormatInt(int64(a), 10) + ":" + strconv.FormatInt(int64(b), 10))
}

// Parties is what a conversation's name says: a room, or the two users of a direct conversation.
type Parties struct {
	Room      RoomID // 0 for a direct conversation
	Low, High UserID // 0 for a room
}

// Includes reports whether the user is one of the two of a direct conversation.
func (p Parties) Includes(user UserID) bool { return p.Room == 0 && (p.Low == user || p.High == user) }

// Other is the one of a direct conversation who is not the user; the user itself if both are.
func (p Parties) Other(user UserID) UserID {
	if p.Low == user {
		return p.High
	}
	return p.Low
}

// Parse reads the name. It accepts only the canonical form, so that two spellings never name one conversation;
// anything else is BadRequest.
func (c Conversation) Parse() (Parties, error) {
	kind, rest, _ := strings.Cut(string(c), ":")
	switch kind {
	case "room":
		if id, err := strconv.ParseInt(rest, 10, 64); err == nil && id > 0 && c == RoomConversation(RoomID(id)) {
			return Parties{Room: RoomID(id)}, nil
		}
	case "dm":
		a, b, _ := strings.Cut(rest, ":")
		low, err := strconv.ParseInt(a, 10, 64)
		high, err2 := strconv.ParseInt(b, 10, 64)
		if err == nil && err2 == nil && low > 0 && c == DirectConversation(UserID(low), UserID(high)) {
			return Parties{Low: UserID(low), High: UserID(high)}, nil
		}
	}
	return Parties{}, Errorf(BadRequest, "conversation %.40q: want room:ROOM or dm:LOW:HIGH", string(c))
}

// Message is one message as it is stored. Seq ascends from 1 in its conversation without a hole.
type Message struct {
	ID           MessageID
	Conversation Conversation
	Seq          int64
	From         UserID
	FromName     string
	To           UserID // 0 in a room
	ToName       string
	Room         RoomID // of a direct message: what the sender gave, 0 if nothing
	ClientID     string // the sender's own name for it, "" if none; unique for each sender
	Text         string
	CreatedAt    time.Time // UTC, whole milliseconds
	Traceparent  string    // W3C trace context of the request that sent it, "" if it had none
}

// Direct reports whether the message is between two users.
func (m *Message) Direct() bool { return m.To != 0 }

// Limits of what people may give. Lengths are in bytes.
const (
	MaxNameBytes     = 64
	MaxPasswordBytes = 256
	MaxRoomNameBytes = 64
	MaxTextBytes     = 16 << 10 // wire.CheckText allows less to a text that must be escaped, so that it fits a tcp packet
	MaxClientIDBytes = 64
	MaxDeviceBytes   = 64
	MaxPage          = 200 // of history, members, rooms, users
	MaxOnlineNames   = 200 // names in an op 5 frame; its count is the truth
	MaxResume        = 200 // conversations in one resume or have
	MaxHeads         = 500 // conversations of which connect asks the heads at once
)

// SessionOf is the session that a token belongs to, if there is one: the hash under which it is kept.
func SessionOf(token string) SessionID {
	sum := sha256.Sum256([]byte(token))
	return SessionID(hex.EncodeToString(sum[:]))
}
