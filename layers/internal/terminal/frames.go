package terminal

import (
	"encoding/json"

	"gochat/layers/connect/wire"
	"gochat/layers/internal/contract"
)

// seqs are seqs by conversation.
type seqs map[contract.Conversation]int64

// request is a frame to the server.
type request struct {
	Op        wire.Op         `json:"op"`
	AuthToken string          `json:"authToken,omitempty"`
	RoomID    contract.RoomID `json:"roomId,omitempty"`
	ToUserID  contract.UserID `json:"toUserId,omitempty"`
	Msg       string          `json:"msg,omitempty"`
	ClientID  string          `json:"clientId,omitempty"`
	Device    string          `json:"device,omitempty"`
	Resume    seqs            `json:"resume,omitempty"`
	Have      seqs            `json:"have,omitempty"`
}

// The frames from the server, besides wire.Message.
type (
	roomInfo struct {
		RoomID contract.RoomID            `json:"roomId"`
		Count  int                        `json:"count"`
		Users  map[contract.UserID]string `json:"roomUserInfo"`
	}
	pong struct {
		Heads seqs `json:"heads"`
	}
	ack struct {
		ClientID     string                `json:"clientId"`
		ID           string                `json:"id"`
		Conversation contract.Conversation `json:"conversation"`
		Seq          int64                 `json:"seq"`
		TraceID      string                `json:"traceId"`
	}
	refusal struct {
		Code         contract.Code `json:"code"`
		Message      string        `json:"message"`
		ClientID     string        `json:"clientId"`
		RetryAfterMs int64         `json:"retryAfterMs"`
	}
	replayDone struct {
		Conversation contract.Conversation `json:"conversation"`
		To           int64                 `json:"to"`
		More         bool                  `json:"more"`
	}
	goingAway struct {
		ReconnectAfterMs int64 `json:"reconnectAfterMs"`
	}
)

// decode reads a frame from the server: a wire.Message, one of the types above, or, with nothing in it that matters
// here, its op alone.
func decode(payload []byte) (any, error) {
	var head struct {
		Op wire.Op `json:"op"`
	}
	if err := json.Unmarshal(payload, &head); err != nil {
		return nil, err
	}
	switch head.Op {
	case wire.OpDirect, wire.OpRoom:
		return as[wire.Message](payload)
	case wire.OpRoomInfo:
		return as[roomInfo](payload)
	case wire.OpPong:
		return as[pong](payload)
	case wire.OpAck:
		return as[ack](payload)
	case wire.OpError:
		return as[refusal](payload)
	case wire.OpReplayDone:
		return as[replayDone](payload)
	case wire.OpGoingAway:
		return as[goingAway](payload)
	}
	return head.Op, nil
}

func as[T any](payload []byte) (any, error) {
	var frame T
	err := json.Unmarshal(payload, &frame)
	return frame, err
}
