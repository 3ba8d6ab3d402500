package wire

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"time"

	"gochat/layers/internal/contract"
)

// AppendCount appends op 4: how many are online in the room.
func AppendCount(dst []byte, room contract.RoomID, count int) []byte {
	dst = appendNumber(dst, `{"op":`, OpCount)
	dst = appendNumber(dst, `,"count":`, count)
	dst = appendNumber(dst, `,"roomId":`, room)
	return append(dst, '}')
}

// AppendRoomInfo appends op 5: who is online in the room, by ascending user id. It leaves out the names above
// contract.MaxOnlineNames, and those that a tcp packet has no room for; count is the truth.
func AppendRoomInfo(dst []byte, room contract.RoomID, count int, users []contract.User) []byte {
	users = slices.SortedFunc(slices.Values(users), func(a, b contract.User) int { return cmp.Compare(a.ID, b.ID) })
	const end = "}}"
	limit := len(dst) + maxTCPPayload - len(end)
	dst = appendNumber(dst, `{"op":`, OpRoomInfo)
	dst = appendNumber(dst, `,"count":`, count)
	dst = appendNumber(dst, `,"roomId":`, room)
	dst = append(dst, `,"roomUserInfo":{`...)
	for i, u := range users[:min(len(users), contract.MaxOnlineNames)] {
		before := len(dst)
		dst = append(dst, comma(i)...)
		dst = appendNumber(dst, `"`, u.ID)
		dst = appendQuoted(dst, `":`, u.Name)
		if len(dst) > limit {
			dst = dst[:before]
			break
		}
	}
	return append(dst, end...)
}

// AppendPing appends op 10, which asks the client for op 11.
func AppendPing(dst []byte) []byte {
	return append(appendNumber(dst, `{"op":`, OpPing), '}')
}

// AppendPong appends op 11. Unless heads is nil they are in it, by conversation.
func AppendPong(dst []byte, heads map[contract.Conversation]int64) []byte {
	dst = appendNumber(dst, `{"op":`, OpPong)
	if heads != nil {
		dst = append(dst, `,"heads":{`...)
		for i, c := range slices.Sorted(maps.Keys(heads)) {
			dst = appendQuoted(dst, comma(i), c)
			dst = appendNumber(dst, ":", heads[c])
		}
		dst = append(dst, '}')
	}
	return append(dst, '}')
}

// AppendRead appends op 13: the user has read the conversation up to seq, on another connection.
func AppendRead(dst []byte, c contract.Conversation, seq int64) []byte {
	dst = appendNumber(dst, `{"op":`, OpRead)
	dst = appendQuoted(dst, `,"conversation":`, c)
	dst = appendNumber(dst, `,"seq":`, seq)
	return append(dst, '}')
}

// AppendTyping appends op 14: the user writes in the conversation.
func AppendTyping(dst []byte, c contract.Conversation, user contract.UserID, name string) []byte {
	dst = appendNumber(dst, `{"op":`, OpTyping)
	dst = appendQuoted(dst, `,"conversation":`, c)
	dst = appendNumber(dst, `,"fromUserId":`, user)
	dst = appendQuoted(dst, `,"fromUserName":`, name)
	return append(dst, '}')
}

// AppendAck appends op 20: the message that the client named clientID is stored.
func AppendAck(dst []byte, clientID string, r *contract.Receipt) []byte {
	dst = appendNumber(dst, `{"op":`, OpAck)
	dst = appendQuoted(dst, `,"clientId":`, clientID)
	dst = appendQuoted(dst, `,"id":`, r.ID.String())
	dst = appendQuoted(dst, `,"conversation":`, r.Conversation)
	dst = appendNumber(dst, `,"seq":`, r.Seq)
	dst = appendQuoted(dst, `,"traceId":`, r.TraceID)
	return append(dst, '}')
}

// AppendError appends op 21. It names the client's frame unless clientID is "", and says when another try may succeed
// if that is known.
func AppendError(dst []byte, clientID, traceID string, e *contract.Error) []byte {
	dst = appendNumber(dst, `{"op":`, OpError)
	dst = appendQuoted(dst, `,"code":`, e.Code)
	dst = appendQuoted(dst, `,"message":`, e.Message)
	if clientID != "" {
		dst = appendQuoted(dst, `,"clientId":`, clientID)
	}
	if e.RetryAfter > 0 {
		dst = appendNumber(dst, `,"retryAfterMs":`, milliseconds(e.RetryAfter))
	}
	if traceID != "" {
		dst = appendQuoted(dst, `,"traceId":`, traceID)
	}
	return append(dst, '}')
}

// AppendReplayDone appends op 22: the messages from the one seq to the other, both included, have been sent again;
// with more, others follow them and the client asks for them.
func AppendReplayDone(dst []byte, c contract.Conversation, from, to int64, more bool) []byte {
	dst = appendNumber(dst, `{"op":`, OpReplayDone)
	dst = appendQuoted(dst, `,"conversation":`, c)
	dst = appendNumber(dst, `,"from":`, from)
	dst = appendNumber(dst, `,"to":`, to)
	dst = strconv.AppendBool(append(dst, `,"more":`...), more)
	return append(dst, '}')
}

// AppendGoingAway appends op 23: the node is about to leave, and the client comes back after that time.
func AppendGoingAway(dst []byte, after time.Duration) []byte {
	dst = appendNumber(dst, `{"op":`, OpGoingAway)
	dst = appendNumber(dst, `,"reconnectAfterMs":`, milliseconds(after))
	return append(dst, '}')
}

// comma is what stands before the member at index i of an object.
func comma(i int) string {
	if i == 0 {
		return ""
	}
	return ","
}

// milliseconds rounds up: who comes back a little early is refused once more. A negative time is 0.
func milliseconds(d time.Duration) int64 {
	ms := d.Milliseconds()
	if d%time.Millisecond > 0 {
		ms++
	}
	return max(ms, 0)
}
