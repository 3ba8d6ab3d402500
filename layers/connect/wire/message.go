package wire

import (
	"strconv"
	"strings"

	"gochat/layers/internal/contract"
)

const (
	createTimeLayout = "2006-01-02 15:04:05"
	createdAtLayout  = "2006-01-02T15:04:05.000Z" // RFC 3339 in UTC
)

// Message is the message frame: op 2 if it is private, op 3 in a room. All fields are always present, in this order.
type Message struct {
	Code         int                   `json:"code"` // always 0
	Msg          string                `json:"msg"`
	FromUserID   contract.UserID       `json:"fromUserId"`
	FromUserName string                `json:"fromUserName"`
	ToUserID     contract.UserID       `json:"toUserId"` // 0 in a room
	ToUserName   string                `json:"toUserName"`
	RoomID       contract.RoomID       `json:"roomId"`
	Op           Op                    `json:"op"`
	CreateTime   string                `json:"createTime"` // UTC, whole seconds
	ID           string                `json:"id"`
	Conversation contract.Conversation `json:"conversation"`
	Seq          int64                 `json:"seq"`
	ClientID     string                `json:"clientId"`
	CreatedAt    string                `json:"createdAt"` // RFC 3339 in UTC, milliseconds
	TraceID      string                `json:"traceId"`   // 32 hex digits, "" if the message has no trace
	Traceparent  string                `json:"traceparent"`
}

// FromMessage is the frame of a stored message. A trace context that is not of W3C's form is left out, since its
// length would be nobody's to bound.
func FromMessage(m *contract.Message) Message {
	at := m.CreatedAt.UTC()
	f := Message{
		Msg:          m.Text,
		FromUserID:   m.From,
		FromUserName: m.FromName,
		RoomID:       m.Room,
		Op:           OpRoom,
		CreateTime:   at.Format(createTimeLayout),
		ID:           m.ID.String(),
		Conversation: m.Conversation,
		Seq:          m.Seq,
		ClientID:     m.ClientID,
		CreatedAt:    at.Format(createdAtLayout),
	}
	if m.Direct() {
		f.Op, f.ToUserID, f.ToUserName = OpDirect, m.To, m.ToName
	}
	if isTraceparent(m.Traceparent) {
		f.TraceID, f.Traceparent = m.Traceparent[3:35], m.Traceparent
	}
	return f
}

// AppendMessage appends the frame of a stored message: the bytes that encoding/json makes of FromMessage(m) with HTML
// escaping off.
func AppendMessage(dst []byte, m *contract.Message) []byte {
	f := FromMessage(m)
	dst = appendNumber(dst, `{"code":`, f.Code)
	dst = appendQuoted(dst, `,"msg":`, f.Msg)
	dst = appendNumber(dst, `,"fromUserId":`, f.FromUserID)
	dst = appendQuoted(dst, `,"fromUserName":`, f.FromUserName)
	dst = appendNumber(dst, `,"toUserId":`, f.ToUserID)
	dst = appendQuoted(dst, `,"toUserName":`, f.ToUserName)
	dst = appendNumber(dst, `,"roomId":`, f.RoomID)
	dst = appendNumber(dst, `,"op":`, f.Op)
	dst = appendQuoted(dst, `,"createTime":`, f.CreateTime)
	dst = appendQuoted(dst, `,"id":`, f.ID)
	dst = appendQuoted(dst, `,"conversation":`, f.Conversation)
	dst = appendNumber(dst, `,"seq":`, f.Seq)
	dst = appendQuoted(dst, `,"clientId":`, f.ClientID)
	dst = appendQuoted(dst, `,"createdAt":`, f.CreatedAt)
	dst = appendQuoted(dst, `,"traceId":`, f.TraceID)
	dst = appendQuoted(dst, `,"traceparent":`, f.Traceparent)
	return append(dst, '}')
}

// appendNumber appends a member whose value is a number; key holds all that stands before the value.
func appendNumber[N ~int | ~int64](dst []byte, key string, n N) []byte {
	return strconv.AppendInt(append(dst, key...), int64(n), 10)
}

// appendQuoted appends a member whose value is a string; key holds all that stands before the value.
func appendQuoted[S ~string](dst []byte, key string, s S) []byte {
	return appendString(append(dst, key...), string(s))
}

// isTraceparent reports whether s has the form of W3C Trace Context: version, trace id, parent id and flags in
// lower-case hex. The ids are not all zero, and the version is not ff.
func isTraceparent(s string) bool {
	if len(s) != 55 || s[2] != '-' || s[35] != '-' || s[52] != '-' {
		return false
	}
	version, trace, parent, flags := s[:2], s[3:35], s[36:52], s[53:]
	for _, part := range [...]string{version, trace, parent, flags} {
		if strings.Trim(part, "0123456789abcdef") != "" {
			return false
		}
	}
	return version != "ff" && strings.Trim(trace, "0") != "" && strings.Trim(parent, "0") != ""
}
