package api

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"gochat/layers/internal/contract"
	"gochat/observability"
)

// seedCalls is what each of the seed's routes asks of logic.
var seedCalls = []struct {
	path, body, method string
	want               any
}{
	{"/user/register", `{"userName":"demo","passWord":"pw"}`, "Register", &contract.RegisterRequest{Name: "demo", Password: "pw"}},
	{"/user/login", `{"userName":"demo","passWord":"pw"}`, "Login", &contract.LoginRequest{Name: "demo", Password: "pw"}},
	{"/user/checkAuth", `{"authToken":"T"}`, "Authenticate", &contract.AuthenticateRequest{Credential: contract.Credential{Token: "T"}}},
	{"/user/logout", `{"authToken":"T"}`, "Logout", &contract.LogoutRequest{Credential: contract.Credential{Token: "T"}}},
	{"/push/push", `{"authToken":"T","msg":"hi","toUserId":"7","roomId":3,"fromUserId":9}`, "Send",
		&contract.SendRequest{Credential: contract.Credential{Token: "T"}, Room: 3, To: 7, Text: "hi"}},
	{"/push/pushRoom", `{"authToken":"T","msg":"hi","roomId":3,"toUserId":"7","clientId":4}`, "Send",
		&contract.SendRequest{Credential: contract.Credential{Token: "T"}, Room: 3, Text: "hi"}},
	{"/push/count", `{"authToken":"T","roomId":3}`, "Announce", &contract.AnnounceRequest{Credential: contract.Credential{Token: "T"}, Room: 3}},
	{"/push/getRoomInfo", `{"authToken":"T","roomId":3}`, "Announce", &contract.AnnounceRequest{Credential: contract.Credential{Token: "T"}, Room: 3, Names: true}},
}

func TestSeedAsksLogicOnce(t *testing.T) {
	for _, c := range seedCalls {
		t.Run(c.path, func(t *testing.T) {
			var calls []any
			logic := &scripted{reply: func(_ context.Context, method string, req any) (any, error) {
				calls = append(calls, method, req)
				return nil, nil
			}}
			g := do(t, "POST", start(t, logic, observability.Discard())+c.path, c.body)
			if g.status != http.StatusOK || g.body["code"] != 0.0 {
				t.Errorf("got %d %s, want success", g.status, g.raw)
			}
			if want := []any{c.method, c.want}; !reflect.DeepEqual(calls, want) {
				t.Errorf("got calls %+v, want %+v", calls, want)
			}
		})
	}
}

// Every failure of logic, on every route: status 200, never "ok", and the session's end told apart from the rest.
func TestSeedFailures(t *testing.T) {
	sessionEnds := map[contract.Code]bool{contract.Unauthenticated: true, contract.SessionEnded: true, contract.Replaced: true}
	failures := []error{errors.New("secret: password of the database"), context.DeadlineExceeded, &contract.Error{Code: contract.Forbidden}}
	for _, code := range allCodes {
		failures = append(failures, contract.Errorf(code, "because of %s", code))
	}
	for _, failure := range failures {
		base := start(t, fails(failure), observability.Discard())
		for _, c := range seedCalls {
			t.Run(failure.Error()+c.path, func(t *testing.T) {
				g := do(t, "POST", base+c.path, c.body)
				message, _ := g.body["message"].(string)
				if sessionEnds[contract.CodeOf(failure)] && strings.Contains(c.body, "authToken") {
					if want := `{"code":40000,"message":"Session error","data":null}`; g.status != http.StatusOK || string(g.raw) != want {
						t.Errorf("got %d %s, want %s", g.status, g.raw, want)
					}
					return
				}
				data, given := g.body["data"]
				if g.status != http.StatusOK || g.body["code"] != 1.0 || !given || data != nil {
					t.Errorf("got %d %s, want status 200, code 1, data null", g.status, g.raw)
				}
				if message == "" || message == "ok" || strings.Contains(message, "success") || strings.Contains(message, "secret") {
					t.Errorf("got message %q", message)
				}
			})
		}
	}
}

func TestSeedBadInput(t *testing.T) {
	cases := []struct{ name, path, body, message string }{
		{"no body", "/user/login", ``, "not a JSON object"},
		{"cut", "/user/login", `{"userName":"a"`, "not a JSON object"},
		{"two values", "/user/login", `{"userName":"a","passWord":"b"} {}`, "not a JSON object"},
		{"array", "/user/login", `["a","b"]`, "not a JSON object"},
		{"null", "/user/login", `null`, "userName is missing"},
		{"no name", "/user/register", `{"passWord":"b"}`, "userName is missing"},
		{"empty password", "/user/register", `{"userName":"a","passWord":""}`, "passWord is missing"},
		{"name is a number", "/user/register", `{"userName":1,"passWord":"b"}`, "userName: "},
		{"token is a number", "/user/logout", `{"authToken":1}`, "authToken: "},
		{"no msg", "/push/pushRoom", `{"authToken":"T","roomId":1}`, "msg is missing"},
		{"no room", "/push/pushRoom", `{"authToken":"T","msg":"x"}`, "roomId is missing"},
		{"room 0", "/push/count", `{"authToken":"T","roomId":0}`, "roomId is missing"},
		{"room below 0", "/push/count", `{"authToken":"T","roomId":-1}`, "roomId is missing"},
		{"room is a string", "/push/getRoomInfo", `{"authToken":"T","roomId":"1"}`, "roomId: "},
		{"room is a fraction", "/push/getRoomInfo", `{"authToken":"T","roomId":1.5}`, "roomId: "},
		{"room too large", "/push/count", `{"authToken":"T","roomId":99999999999999999999}`, "roomId: "},
		{"no addressee", "/push/push", `{"authToken":"T","msg":"x","roomId":1}`, "toUserId is missing"},
		{"addressee is a number", "/push/push", `{"authToken":"T","msg":"x","roomId":1,"toUserId":7}`, "toUserId: "},
		{"addressee is a word", "/push/push", `{"authToken":"T","msg":"x","roomId":1,"toUserId":"bob"}`, "string of digits"},
		{"addressee 0", "/push/push", `{"authToken":"T","msg":"x","roomId":1,"toUserId":"0"}`, "string of digits"},
		{"addressee with a sign", "/push/push", `{"authToken":"T","msg":"x","roomId":1,"toUserId":"+7"}`, "string of digits"},
		{"addressee too large", "/push/push", `{"authToken":"T","msg":"x","roomId":1,"toUserId":"9223372036854775808"}`, "string of digits"},
		{"body over 1 MiB", "/push/pushRoom", `{"authToken":"T","roomId":1,"msg":"` + strings.Repeat("x", 1<<20) + `"}`, "over 1048576 bytes"},
	}
	base := start(t, &scripted{reply: func(_ context.Context, method string, _ any) (any, error) {
		t.Errorf("%s was called", method)
		return nil, nil
	}}, observability.Discard())
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			g := do(t, "POST", base+c.path, c.body)
			message, _ := g.body["message"].(string)
			if g.status != http.StatusOK || g.body["code"] != 1.0 || g.body["data"] != nil || !strings.Contains(message, c.message) {
				t.Errorf("got %d %s, want status 200, code 1, message with %q", g.status, g.raw, c.message)
			}
		})
	}
	t.Run("wrong method", func(t *testing.T) {
		if g := do(t, "GET", base+"/user/login", ""); g.status != http.StatusOK || g.body["code"] != 1.0 {
			t.Errorf("got %d %s, want status 200, code 1", g.status, g.raw)
		}
	})
	t.Run("path that does not exist", func(t *testing.T) {
		for _, path := range []string{"/", "/user", "/user/login/", "/push/pushroom", "/v2/me", "/v1x"} {
			if g := do(t, "POST", base+path, "{}"); g.status != http.StatusNotFound || g.body["code"] != 1.0 {
				t.Errorf("%s: got %d %s, want 404", path, g.status, g.raw)
			}
		}
	})
}
