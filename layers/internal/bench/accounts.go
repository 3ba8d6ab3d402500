package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"gochat/layers/internal/contract"
)

// account is a user with a session.
type account struct {
	Token string          `json:"token"`
	ID    contract.UserID `json:"userId"`
}

// rest calls the REST API. It may be used by many goroutines at once. Its errors are *contract.Error where the server
// said what was wrong.
type rest struct {
	base   string
	client *http.Client
}

const (
	callTimeout = 30 * time.Second // password hashes queue up
	answerLimit = 16 << 20         // bytes
)

func newREST(base string, logins int) *rest {
	return &rest{
		base: strings.TrimRight(base, "/"),
		// No proxy and no redirect: they might lead away from the address that was judged.
		client: &http.Client{
			Timeout: callTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: logins},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

func (r *rest) close() { r.client.CloseIdleConnections() }

// logIn gives the first users with the prefix a session each, and makes those that are missing.
func (r *rest) logIn(ctx context.Context, prefix, password string, users, atOnce int) ([]account, error) {
	accounts := make([]account, users)
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(atOnce)
	for i := range accounts {
		work.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			name := fmt.Sprintf("%s%04d", prefix, i+1)
			body := map[string]string{"name": name, "password": password, "device": "gochat bench"}
			err := r.call(ctx, "", http.MethodPost, "/v1/login", body, &accounts[i])
			if contract.CodeOf(err) == contract.Unauthenticated {
				err = r.call(ctx, "", http.MethodPost, "/v1/register", body, &accounts[i])
				if contract.CodeOf(err) == contract.Conflict {
					return fmt.Errorf("user %s: it exists with another password than --password", name)
				}
			}
			if err != nil {
				return fmt.Errorf("user %s: %w", name, err)
			}
			return nil
		})
	}
	return accounts, work.Wait()
}

func (r *rest) logOut(ctx context.Context, a account) error {
	return r.call(ctx, a.Token, http.MethodPost, "/v1/logout", nil, nil)
}

type namedRoom struct {
	ID      contract.RoomID `json:"id"`
	Name    string          `json:"name"`
	Private bool            `json:"private"`
}

// rooms finds the public rooms with the prefix and a number up to n, and makes those that are missing.
func (r *rest) rooms(ctx context.Context, by account, prefix string, n int) ([]contract.RoomID, error) {
	found := make(map[string]contract.RoomID)
	for after := contract.RoomID(0); ; {
		var page struct {
			Rooms []namedRoom `json:"rooms"`
			More  bool        `json:"more"`
		}
		query := url.Values{"query": {prefix}, "after": {strconv.FormatInt(int64(after), 10)}, "limit": {strconv.Itoa(contract.MaxPage)}}
		if err := r.call(ctx, by.Token, http.MethodGet, "/v1/rooms?"+query.Encode(), nil, &page); err != nil {
			return nil, fmt.Errorf("list rooms: %w", err)
		}
		for _, room := range page.Rooms {
			after = max(after, room.ID)
			if _, twice := found[room.Name]; !twice && !room.Private {
				found[room.Name] = room.ID
			}
		}
		if !page.More || len(page.Rooms) == 0 {
			break
		}
	}
	ids := make([]contract.RoomID, n)
	for i := range ids {
		name := fmt.Sprintf("%sroom-%04d", prefix, i+1)
		if id, there := found[name]; there {
			ids[i] = id
			continue
		}
		var made namedRoom
		if err := r.call(ctx, by.Token, http.MethodPost, "/v1/rooms", map[string]string{"name": name}, &made); err != nil {
			return nil, fmt.Errorf("make room %s: %w", name, err)
		}
		ids[i] = made.ID
	}
	return ids, nil
}

// online is how many people the server counts in the room.
func (r *rest) online(ctx context.Context, by account, room contract.RoomID) (int, error) {
	var out struct {
		Count int `json:"count"`
	}
	err := r.call(ctx, by.Token, http.MethodGet, fmt.Sprintf("/v1/rooms/%d/online", room), nil, &out)
	if err != nil {
		return 0, fmt.Errorf("count who is online: %w", err)
	}
	return out.Count, nil
}

// call makes one request and reads the answer into out, unless that is nil.
func (r *rest) call(ctx context.Context, token, method, path string, body, out any) error {
	var payload io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
		payload = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, r.base+path, payload)
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		var withURL *url.Error
		if errors.As(err, &withURL) {
			err = withURL.Err
		}
		return fmt.Errorf("reach %s: %w", r.base, err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, answerLimit))
	if err != nil {
		return fmt.Errorf("read answer of %s: %w", r.base, err)
	}
	if resp.StatusCode/100 != 2 {
		var problem struct {
			Code   string `json:"code"`
			Detail string `json:"detail"`
		}
		if err := json.Unmarshal(raw, &problem); err != nil || problem.Code == "" {
			return fmt.Errorf("the server answered %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
		}
		return contract.Errorf(contract.Code(problem.Code), "%q", problem.Detail)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return fmt.Errorf("decode answer of %s: %w", r.base, err)
	}
	return nil
}
