package api

import (
	"context"
	"net/http"

	"gochat/layers/internal/contract"
)

type credentials struct {
	Name     string `json:"name" minLength:"1" maxLength:"64"`
	Password string `json:"password" minLength:"1" maxLength:"256" format:"password"`
	Device   string `json:"device,omitempty" maxLength:"64" doc:"What the session's user will know it by."`
}

// registration asks more of a password than the routes of the seed may, whose clients know no such rule.
type registration struct {
	Name     string `json:"name" minLength:"1" maxLength:"64"`
	Password string `json:"password" minLength:"6" maxLength:"256" format:"password"`
	Device   string `json:"device,omitempty" maxLength:"64" doc:"What the session's user will know it by."`
}

type grant struct {
	Token     string          `json:"token"`
	UserID    contract.UserID `json:"userId"`
	Name      string          `json:"name"`
	ExpiresAt string          `json:"expiresAt" format:"date-time"`
}

func grantOf(g *contract.SessionGrant) *answer[grant] {
	return &answer[grant]{grant{Token: g.Token, UserID: g.User, Name: g.Name, ExpiresAt: rfc3339(g.ExpiresAt)}}
}

type me struct {
	UserID    contract.UserID    `json:"userId"`
	Name      string             `json:"name"`
	SessionID contract.SessionID `json:"sessionId"`
	Device    string             `json:"device"`
	ExpiresAt string             `json:"expiresAt" format:"date-time"`
}

type session struct {
	ID        contract.SessionID `json:"id"`
	Device    string             `json:"device"`
	CreatedAt string             `json:"createdAt" format:"date-time"`
	ExpiresAt string             `json:"expiresAt" format:"date-time"`
	Current   bool               `json:"current" doc:"It is the one that asks."`
}

type sessions struct {
	Sessions []session `json:"sessions" nullable:"false"`
}

type user struct {
	ID   contract.UserID `json:"id"`
	Name string          `json:"name"`
}

type users struct {
	Users []user `json:"users" nullable:"false"`
}

func usersOf(from []contract.User) []user {
	list := make([]user, len(from)) // never nil: an empty list is [], not null
	for i, u := range from {
		list[i] = user{ID: u.ID, Name: u.Name}
	}
	return list
}

func (v *v1) accounts() {
	open(v, v.operation(http.MethodPost, "/v1/register", "register", "Make an account and its first session", http.StatusCreated),
		func(ctx context.Context, in *struct{ Body registration }) (*answer[grant], error) {
			g, err := v.logic.Register(ctx, &contract.RegisterRequest{Name: in.Body.Name, Password: in.Body.Password, Device: in.Body.Device})
			if err != nil {
				return nil, err
			}
			return grantOf(g), nil
		})
	open(v, v.operation(http.MethodPost, "/v1/login", "login", "Begin a session", http.StatusOK),
		func(ctx context.Context, in *struct{ Body credentials }) (*answer[grant], error) {
			g, err := v.logic.Login(ctx, &contract.LoginRequest{Name: in.Body.Name, Password: in.Body.Password, Device: in.Body.Device})
			if err != nil {
				return nil, err
			}
			return grantOf(g), nil
		})
	authorized(v, v.operation(http.MethodPost, "/v1/logout", "logout", "End this session", http.StatusNoContent),
		func(ctx context.Context, by contract.Credential, _ *nothing) (*nothing, error) {
			_, err := v.logic.Logout(ctx, &contract.LogoutRequest{Credential: by})
			return &nothing{}, err
		})
	authorized(v, v.operation(http.MethodGet, "/v1/me", "me", "Say whose session this is", http.StatusOK),
		func(ctx context.Context, by contract.Credential, _ *nothing) (*answer[me], error) {
			who, err := v.logic.Authenticate(ctx, &contract.AuthenticateRequest{Credential: by})
			if err != nil {
				return nil, err
			}
			return &answer[me]{me{UserID: who.User, Name: who.Name, SessionID: who.Session, Device: who.Device, ExpiresAt: rfc3339(who.ExpiresAt)}}, nil
		})
	authorized(v, v.operation(http.MethodGet, "/v1/sessions", "sessions", "List the sessions of this account", http.StatusOK),
		func(ctx context.Context, by contract.Credential, _ *nothing) (*answer[sessions], error) {
			reply, err := v.logic.Sessions(ctx, &contract.SessionsRequest{Credential: by})
			if err != nil {
				return nil, err
			}
			list := make([]session, len(reply.Sessions))
			for i, s := range reply.Sessions {
				list[i] = session{ID: s.ID, Device: s.Device, CreatedAt: rfc3339(s.CreatedAt), ExpiresAt: rfc3339(s.ExpiresAt), Current: s.Current}
			}
			return &answer[sessions]{sessions{list}}, nil
		})
	authorized(v, v.operation(http.MethodDelete, "/v1/sessions/{id}", "end-session", "End one session", http.StatusNoContent),
		func(ctx context.Context, by contract.Credential, in *struct {
			ID contract.SessionID `path:"id" pattern:"^[0-9a-f]{64}$" patternDescription:"a session id"`
		}) (*nothing, error) {
			_, err := v.logic.EndSessions(ctx, &contract.EndSessionsRequest{Credential: by, Session: in.ID})
			return &nothing{}, err
		})
	authorized(v, v.operation(http.MethodDelete, "/v1/sessions", "end-other-sessions", "End all other sessions", http.StatusNoContent),
		func(ctx context.Context, by contract.Credential, _ *nothing) (*nothing, error) {
			_, err := v.logic.EndSessions(ctx, &contract.EndSessionsRequest{Credential: by})
			return &nothing{}, err
		})
	authorized(v, v.operation(http.MethodGet, "/v1/users", "find-users", "Find people by the beginning of their name", http.StatusOK),
		func(ctx context.Context, by contract.Credential, in *struct {
			Page
			Name string `query:"name" required:"true" minLength:"1" maxLength:"64"`
		}) (*answer[users], error) {
			reply, err := v.logic.FindUsers(ctx, &contract.FindUsersRequest{Credential: by, Name: in.Name, Limit: in.Limit})
			if err != nil {
				return nil, err
			}
			return &answer[users]{users{usersOf(reply.Users)}}, nil
		})
}
