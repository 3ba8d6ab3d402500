package contract

import "context"

// Connect is what one connect node answers. Calls are addressed to a node, never balanced over them.
type Connect interface {
	// Push hands deliveries to the node's connections, in the order given, and answers once each has been written,
	// queued on its connection, or dropped with a reason. Results are in the order of the deliveries. A message that was
	// pushed here before is not pushed again. One that skips ahead in its conversation is deferred: the node fetches
	// what is missing, brings all of it in order, and counts it then.
	Push(context.Context, *PushRequest) (*PushReply, error)
	// CloseSessions closes the connections of the sessions with the code.
	CloseSessions(context.Context, *CloseSessionsRequest) (*Empty, error)
	// LeaveRoom takes the user's connections out of the room.
	LeaveRoom(context.Context, *NodeLeaveRoomRequest) (*Empty, error)
}

type PushRequest struct{ Deliveries []Delivery }

type PushReply struct{ Results []PushResult }

// PushResult is what became of one delivery: Written, Queued, Slow and Gone count connections; Had and Deferred count
// the users named, or are 1 for a room.
type PushResult struct {
	Written int // the frame is in the socket
	Queued  int // the frame waits for the socket
	Slow    int // closed, since what waited for them went over the bound
	Gone    int // closed while the frame was on its way

	Had      int // it was pushed here before, and counted then
	Deferred int // it waits until what is missing before it has been fetched, and is counted then

	// Absent are the users named of whom the node has no connection.
	Absent []UserID
}

// Receivers is how many connections the delivery was meant for.
func (r PushResult) Receivers() int { return r.Written + r.Queued + r.Slow + r.Gone }

type CloseSessionsRequest struct {
	Sessions []SessionID
	Code     Code // SessionEnded or Replaced
}

type NodeLeaveRoomRequest struct {
	User UserID
	Room RoomID
}
