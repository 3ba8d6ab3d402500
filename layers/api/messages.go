package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"gochat/layers/connect/wire"
	"gochat/layers/internal/contract"
)

// UserPath is the id of a route on a person.
type UserPath struct {
	ID contract.UserID `path:"id" minimum:"1"`
}

type newMessage struct {
	Msg      string `json:"msg" minLength:"1" maxLength:"16384" doc:"The limit is in bytes of UTF-8."`
	ClientID string `json:"clientId,omitempty" maxLength:"64" doc:"The sender's own name for the message: sent again, it is the same message."`
}

// Resolve gives a text that is too long the code that it has on a socket, in bytes as there, which no schema can
// state.
func (m *newMessage) Resolve(huma.Context) []error {
	if len(m.Msg) > contract.MaxTextBytes {
		return []error{huma.Error413RequestEntityTooLarge("the message is too long")}
	}
	return nil
}

type receipt struct {
	ID           string                `json:"id"`
	Conversation contract.Conversation `json:"conversation"`
	Seq          int64                 `json:"seq" doc:"Ascends from 1 in the conversation without a hole."`
	CreatedAt    string                `json:"createdAt" format:"date-time"`
	TraceID      string                `json:"traceId"`
}

// SeqRange is the query of a history.
type SeqRange struct {
	Page
	After  int64 `query:"after" minimum:"0" doc:"Messages that follow this seq; the default, from the first."`
	Before int64 `query:"before" minimum:"1" doc:"Messages that precede this seq."`
}

type history struct {
	Messages []wire.Message `json:"messages" nullable:"false" doc:"Seq ascending."`
	More     bool           `json:"more" doc:"There are further ones in the direction asked for."`
}

type conversation struct {
	Conversation contract.Conversation `json:"conversation" example:"room:1"`
	LastSeq      int64                 `json:"lastSeq"`
	ReadSeq      int64                 `json:"readSeq"`
	Unread       int64                 `json:"unread"`
	Last         *wire.Message         `json:"last,omitempty" doc:"Absent if nothing was said yet."`
}

type inbox struct {
	Conversations []conversation `json:"conversations" nullable:"false" doc:"The latest message first."`
}

// readMark has no seq that JSON cannot hold.
type readMark struct {
	Seq int64 `json:"seq" minimum:"0" maximum:"9007199254740991"`
}

func (v *v1) messages() {
	authorized(v, v.operation(http.MethodPost, "/v1/rooms/{id}/messages", "send-to-room", "Send to a room", http.StatusCreated),
		func(ctx context.Context, by contract.Credential, in *struct {
			RoomPath
			Body newMessage
		}) (*answer[receipt], error) {
			return v.send(ctx, &contract.SendRequest{Credential: by, Room: in.ID, Text: in.Body.Msg, ClientID: in.Body.ClientID})
		})
	authorized(v, v.operation(http.MethodPost, "/v1/users/{id}/messages", "send-to-user", "Send privately", http.StatusCreated),
		func(ctx context.Context, by contract.Credential, in *struct {
			UserPath
			Body newMessage
		}) (*answer[receipt], error) {
			return v.send(ctx, &contract.SendRequest{Credential: by, To: in.ID, Text: in.Body.Msg, ClientID: in.Body.ClientID})
		})
	authorized(v, v.operation(http.MethodGet, "/v1/rooms/{id}/messages", "room-history", "Read a room's messages", http.StatusOK),
		func(ctx context.Context, by contract.Credential, in *struct {
			RoomPath
			SeqRange
		}) (*answer[history], error) {
			return v.history(ctx, &contract.HistoryRequest{Credential: by, Conversation: contract.RoomConversation(in.ID)}, in.SeqRange)
		})
	authorized(v, v.operation(http.MethodGet, "/v1/users/{id}/messages", "user-history", "Read a private conversation", http.StatusOK),
		func(ctx context.Context, by contract.Credential, in *struct {
			UserPath
			SeqRange
		}) (*answer[history], error) {
			return v.history(ctx, &contract.HistoryRequest{Credential: by, With: in.ID}, in.SeqRange)
		})
	authorized(v, v.operation(http.MethodGet, "/v1/inbox", "inbox", "List one's conversations", http.StatusOK),
		func(ctx context.Context, by contract.Credential, in *Page) (*answer[inbox], error) {
			reply, err := v.logic.Inbox(ctx, &contract.InboxRequest{Credential: by, Limit: in.Limit})
			if err != nil {
				return nil, err
			}
			list := make([]conversation, len(reply.Entries))
			for i, e := range reply.Entries {
				list[i] = conversation{Conversation: e.Conversation, LastSeq: e.LastSeq, ReadSeq: e.ReadSeq, Unread: e.Unread}
				if e.Last != nil {
					last := wire.FromMessage(e.Last)
					list[i].Last = &last
				}
			}
			return &answer[inbox]{inbox{list}}, nil
		})
	authorized(v, v.operation(http.MethodPut, "/v1/conversations/{conversation}/read", "mark-read", "Move one's read mark forward", http.StatusOK),
		func(ctx context.Context, by contract.Credential, in *struct {
			Conversation contract.Conversation `path:"conversation" doc:"room:ROOM or dm:LOW:HIGH" example:"room:1"`
			Body         readMark
		}) (*answer[readMark], error) {
			if _, err := in.Conversation.Parse(); err != nil {
				return nil, err
			}
			reply, err := v.logic.MarkRead(ctx, &contract.MarkReadRequest{Credential: by, Conversation: in.Conversation, Seq: in.Body.Seq})
			if err != nil {
				return nil, err
			}
			return &answer[readMark]{readMark{reply.Seq}}, nil
		})
}

func (v *v1) send(ctx context.Context, req *contract.SendRequest) (*answer[receipt], error) {
	r, err := v.logic.Send(ctx, req)
	if err != nil {
		return nil, err
	}
	return &answer[receipt]{receipt{
		ID: r.ID.String(), Conversation: r.Conversation, Seq: r.Seq, CreatedAt: rfc3339(r.CreatedAt), TraceID: r.TraceID,
	}}, nil
}

// history asks for the range of the conversation that the request names.
func (v *v1) history(ctx context.Context, ask *contract.HistoryRequest, s SeqRange) (*answer[history], error) {
	if s.After > 0 && s.Before > 0 {
		return nil, contract.Errorf(contract.BadRequest, "want after or before, not both")
	}
	ask.After, ask.Before, ask.Limit = s.After, s.Before, s.Limit
	reply, err := v.logic.History(ctx, ask)
	if err != nil {
		return nil, err
	}
	list := make([]wire.Message, len(reply.Messages))
	for i := range reply.Messages {
		list[i] = wire.FromMessage(&reply.Messages[i])
	}
	return &answer[history]{history{list, reply.More}}, nil
}
