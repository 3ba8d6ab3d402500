package api

import (
	"context"
	"net/http"

	"gochat/layers/internal/contract"
)

// RoomPath is the id of a route on a room.
type RoomPath struct {
	ID contract.RoomID `path:"id" minimum:"1"`
}

type newRoom struct {
	Name    string `json:"name" minLength:"1" maxLength:"64"`
	Private bool   `json:"private,omitempty" doc:"Only members may see and enter it."`
}

type room struct {
	ID        contract.RoomID `json:"id"`
	Name      string          `json:"name"`
	Private   bool            `json:"private"`
	Owner     contract.UserID `json:"owner" doc:"0 for the lobby."`
	Member    bool            `json:"member" doc:"The caller is a member."`
	CreatedAt string          `json:"createdAt" format:"date-time"`
}

func roomOf(r *contract.Room) room {
	return room{ID: r.ID, Name: r.Name, Private: r.Private, Owner: r.Owner, Member: r.Member, CreatedAt: rfc3339(r.CreatedAt)}
}

type rooms struct {
	Rooms []room `json:"rooms" nullable:"false"`
	More  bool   `json:"more" doc:"There are further ones: ask with after."`
}

type members struct {
	Members []user `json:"members" nullable:"false"`
	More    bool   `json:"more" doc:"There are further ones: ask with after."`
}

type online struct {
	RoomID contract.RoomID `json:"roomId"`
	Count  int             `json:"count" doc:"People, however many connections each has."`
	Users  []user          `json:"users" nullable:"false" doc:"At most 200 of them, by id."`
}

func (v *v1) rooms() {
	authorized(v, v.operation(http.MethodPost, "/v1/rooms", "create-room", "Make a room", http.StatusCreated),
		func(ctx context.Context, by contract.Credential, in *struct{ Body newRoom }) (*answer[room], error) {
			made, err := v.logic.CreateRoom(ctx, &contract.CreateRoomRequest{Credential: by, Name: in.Body.Name, Private: in.Body.Private})
			if err != nil {
				return nil, err
			}
			return &answer[room]{roomOf(made)}, nil
		})
	authorized(v, v.operation(http.MethodGet, "/v1/rooms", "rooms", "List public rooms and one's own", http.StatusOK),
		func(ctx context.Context, by contract.Credential, in *struct {
			Page
			Query string          `query:"query" maxLength:"64" doc:"A part of the name, in any case."`
			After contract.RoomID `query:"after" minimum:"0" doc:"Rooms with a higher id."`
		}) (*answer[rooms], error) {
			reply, err := v.logic.Rooms(ctx, &contract.RoomsRequest{Credential: by, Query: in.Query, After: in.After, Limit: in.Limit})
			if err != nil {
				return nil, err
			}
			list := make([]room, len(reply.Rooms))
			for i := range reply.Rooms {
				list[i] = roomOf(&reply.Rooms[i])
			}
			return &answer[rooms]{rooms{list, reply.More}}, nil
		})
	authorized(v, v.operation(http.MethodGet, "/v1/rooms/{id}", "room", "Describe a room", http.StatusOK),
		func(ctx context.Context, by contract.Credential, in *RoomPath) (*answer[room], error) {
			found, err := v.logic.Room(ctx, &contract.RoomRequest{Credential: by, Room: in.ID})
			if err != nil {
				return nil, err
			}
			return &answer[room]{roomOf(found)}, nil
		})
	authorized(v, v.operation(http.MethodPost, "/v1/rooms/{id}/join", "join-room", "Become a member", http.StatusNoContent),
		func(ctx context.Context, by contract.Credential, in *RoomPath) (*nothing, error) {
			_, err := v.logic.JoinRoom(ctx, &contract.RoomRequest{Credential: by, Room: in.ID})
			return &nothing{}, err
		})
	authorized(v, v.operation(http.MethodPost, "/v1/rooms/{id}/leave", "leave-room", "End one's membership", http.StatusNoContent),
		func(ctx context.Context, by contract.Credential, in *RoomPath) (*nothing, error) {
			_, err := v.logic.LeaveRoom(ctx, &contract.RoomRequest{Credential: by, Room: in.ID})
			return &nothing{}, err
		})
	authorized(v, v.operation(http.MethodGet, "/v1/rooms/{id}/members", "members", "List a room's members by user id", http.StatusOK),
		func(ctx context.Context, by contract.Credential, in *struct {
			RoomPath
			Page
			After contract.UserID `query:"after" minimum:"0" doc:"Members with a higher id."`
		}) (*answer[members], error) {
			reply, err := v.logic.Members(ctx, &contract.MembersRequest{Credential: by, Room: in.ID, After: in.After, Limit: in.Limit})
			if err != nil {
				return nil, err
			}
			return &answer[members]{members{usersOf(reply.Members), reply.More}}, nil
		})
	authorized(v, v.operation(http.MethodGet, "/v1/rooms/{id}/online", "online", "Say who is in a room now", http.StatusOK),
		func(ctx context.Context, by contract.Credential, in *RoomPath) (*answer[online], error) {
			reply, err := v.logic.Online(ctx, &contract.RoomRequest{Credential: by, Room: in.ID})
			if err != nil {
				return nil, err
			}
			return &answer[online]{online{RoomID: reply.Room, Count: reply.Count, Users: usersOf(reply.Users)}}, nil
		})
}
