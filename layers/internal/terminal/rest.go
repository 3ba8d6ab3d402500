package terminal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"gochat/layers/connect/wire"
	"gochat/layers/internal/contract"
)

const (
	answerLimit = 16 << 20 // bytes: a page of the longest messages, each character escaped
	callTimeout = 10 * time.Second
)

// rest calls the REST API. After logIn it may be used by many goroutines at once. Its errors are *contract.Error
// where the server said what was wrong.
type rest struct {
	base   string
	token  string
	client *http.Client
}

type (
	grant struct {
		Token  string          `json:"token"`
		UserID contract.UserID `json:"userId"`
		Name   string          `json:"name"`
	}
	room struct {
		ID      contract.RoomID `json:"id"`
		Name    string          `json:"name"`
		Private bool            `json:"private"`
	}
	entry struct {
		Conversation contract.Conversation `json:"conversation"`
		LastSeq      int64                 `json:"lastSeq"`
		ReadSeq      int64                 `json:"readSeq"`
		Unread       int64                 `json:"unread"`
	}
	user struct {
		ID   contract.UserID `json:"id"`
		Name string          `json:"name"`
	}
	online struct {
		Count int    `json:"count"`
		Users []user `json:"users"`
	}
)

func newREST(base string) *rest {
	return &rest{
		base: strings.TrimRight(base, "/"),
		// A transport of its own, so that close ends the connections that it keeps.
		client: &http.Client{Timeout: callTimeout, Transport: &http.Transport{Proxy: http.ProxyFromEnvironment}},
	}
}

func (r *rest) close() { r.client.CloseIdleConnections() }

func (r *rest) logIn(ctx context.Context, name, password string, register bool) (*grant, error) {
	path := "/v1/login"
	if register {
		path = "/v1/register"
	}
	g, err := call[grant](ctx, r, http.MethodPost, path, map[string]string{"name": name, "password": password, "device": device})
	if err == nil {
		r.token = g.Token
	}
	return g, err
}

func (r *rest) logOut(ctx context.Context) error {
	_, err := call[struct{}](ctx, r, http.MethodPost, "/v1/logout", nil)
	return err
}

func (r *rest) inbox(ctx context.Context) ([]entry, error) {
	answer, err := call[struct {
		Conversations []entry `json:"conversations"`
	}](ctx, r, http.MethodGet, "/v1/inbox"+limited(contract.MaxPage), nil)
	if err != nil {
		return nil, err
	}
	return answer.Conversations, nil
}

// room is the room and the seq of the last message in it, 0 if there is none.
func (r *rest) room(ctx context.Context, id contract.RoomID) (*room, int64, error) {
	found, err := call[room](ctx, r, http.MethodGet, roomPath(id), nil)
	if err != nil {
		return nil, 0, err
	}
	last, err := r.history(ctx, id, math.MaxInt64, 1)
	if err != nil || len(last) == 0 {
		return found, 0, err
	}
	return found, last[0].Seq, nil
}

func (r *rest) rooms(ctx context.Context) ([]room, bool, error) {
	answer, err := call[struct {
		Rooms []room `json:"rooms"`
		More  bool   `json:"more"`
	}](ctx, r, http.MethodGet, "/v1/rooms"+limited(contract.MaxPage), nil)
	if err != nil {
		return nil, false, err
	}
	return answer.Rooms, answer.More, nil
}

func (r *rest) makeRoom(ctx context.Context, name string) (*room, error) {
	return call[room](ctx, r, http.MethodPost, "/v1/rooms", map[string]string{"name": name})
}

// history is what precedes the seq in the room, at most limit messages, ascending.
func (r *rest) history(ctx context.Context, id contract.RoomID, before int64, limit int) ([]wire.Message, error) {
	answer, err := call[struct {
		Messages []wire.Message `json:"messages"`
	}](ctx, r, http.MethodGet, roomPath(id)+"/messages"+limited(limit)+"&before="+strconv.FormatInt(before, 10), nil)
	if err != nil {
		return nil, err
	}
	return answer.Messages, nil
}

func (r *rest) online(ctx context.Context, id contract.RoomID) (*online, error) {
	return call[online](ctx, r, http.MethodGet, roomPath(id)+"/online", nil)
}

// user is who has exactly that name.
func (r *rest) user(ctx context.Context, name string) (contract.User, error) {
	answer, err := call[struct {
		Users []user `json:"users"`
	}](ctx, r, http.MethodGet, "/v1/users"+limited(contract.MaxPage)+"&name="+url.QueryEscape(name), nil)
	if err != nil {
		return contract.User{}, err
	}
	for _, u := range answer.Users {
		if u.Name == name {
			return contract.User{ID: u.ID, Name: u.Name}, nil
		}
	}
	return contract.User{}, contract.Errorf(contract.NotFound, "nobody is called %s", name)
}

func (r *rest) markRead(ctx context.Context, c contract.Conversation, seq int64) error {
	_, err := call[struct{}](ctx, r, http.MethodPut, "/v1/conversations/"+url.PathEscape(string(c))+"/read", map[string]int64{"seq": seq})
	return err
}

func roomPath(id contract.RoomID) string { return fmt.Sprintf("/v1/rooms/%d", id) }

func limited(n int) string { return "?limit=" + strconv.Itoa(n) }

// call makes one request and reads the answer, which is left zero if there is none.
func call[T any](ctx context.Context, r *rest, method, path string, body any) (*T, error) {
	var payload io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		payload = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, r.base+path, payload)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	if r.token != "" {
		req.Header.Set("Authorization", "Bearer "+r.token)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		var withURL *url.Error
		if errors.As(err, &withURL) { // which may hold what was asked for, and tells a person little
			err = withURL.Err
		}
		return nil, fmt.Errorf("reach %s: %w", r.base, err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, answerLimit))
	if err != nil {
		return nil, fmt.Errorf("read answer of %s: %w", r.base, err)
	}
	if resp.StatusCode/100 != 2 {
		return nil, problemOf(resp.StatusCode, raw)
	}
	answer := new(T)
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, answer); err != nil {
			return nil, fmt.Errorf("decode answer of %s: %w", r.base, err)
		}
	}
	return answer, nil
}

// problemOf is what an answer with an error status says. It may be printed by others than say.
func problemOf(status int, raw []byte) error {
	var problem struct {
		Code   string `json:"code"`
		Detail string `json:"detail"`
		Errors []struct {
			Message string `json:"message"`
		} `json:"errors"`
	}
	if err := json.Unmarshal(raw, &problem); err != nil || problem.Code == "" {
		return fmt.Errorf("the server answered %d %s", status, http.StatusText(status))
	}
	for _, e := range problem.Errors {
		problem.Detail += ", " + e.Message
	}
	return contract.Errorf(contract.Code(clean(problem.Code)), "%s", clean(problem.Detail))
}
