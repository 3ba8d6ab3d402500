package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"gochat/layers/internal/contract"
)

// The seed's codes.
const (
	seedSuccess      = 0
	seedFailure      = 1
	seedSessionError = 40000
)

// maxBody bounds a request's body, in bytes.
const maxBody = 1 << 20

// envelope is the answer of every route of the seed.
type envelope struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
	Data    any    `json:"data"`
}

// The seed's bodies. Fields that a route does not name are ignored, whatever they hold. The seed takes an empty
// string or a zero for a missing field, and so do we.
type (
	seedCredentials struct {
		UserName string `json:"userName"`
		PassWord string `json:"passWord"`
	}
	seedSession struct {
		AuthToken string `json:"authToken"`
	}
	seedRoom struct {
		seedSession
		RoomID contract.RoomID `json:"roomId"`
	}
	seedRoomMessage struct {
		seedRoom
		Msg string `json:"msg"`
	}
	seedMessage struct {
		seedRoomMessage
		ToUserID string `json:"toUserId"`
	}
	seedIdentity struct {
		UserID   contract.UserID `json:"userId"`
		UserName string          `json:"userName"`
	}
)

// validate reports a missing field. A missing token is a session error, like a wrong one.

func (b seedCredentials) validate() error {
	return errors.Join(need("userName", b.UserName != ""), need("passWord", b.PassWord != ""))
}

func (b seedSession) validate() error {
	if b.AuthToken == "" {
		return contract.Errorf(contract.SessionEnded, "no authToken")
	}
	return nil
}

func (b seedRoom) validate() error {
	return errors.Join(b.seedSession.validate(), need("roomId", b.RoomID > 0))
}

func (b seedRoomMessage) validate() error {
	return errors.Join(b.seedRoom.validate(), need("msg", b.Msg != ""))
}

func (b seedMessage) validate() error {
	return errors.Join(b.seedRoomMessage.validate(), need("toUserId", b.ToUserID != ""))
}

func need(field string, given bool) error {
	if given {
		return nil
	}
	return contract.Errorf(contract.BadRequest, "%s is missing", field)
}

func (b seedSession) credential() contract.Credential { return contract.Credential{Token: b.AuthToken} }

func (a *API) seedRoutes(engine *gin.Engine) {
	engine.POST("/user/register", seedRoute(a, "register success", func(ctx context.Context, b seedCredentials) (any, error) {
		grant, err := a.logic.Register(ctx, &contract.RegisterRequest{Name: b.UserName, Password: b.PassWord})
		if err != nil {
			return nil, err
		}
		return grant.Token, nil
	}))
	engine.POST("/user/login", seedRoute(a, "login success", func(ctx context.Context, b seedCredentials) (any, error) {
		grant, err := a.logic.Login(ctx, &contract.LoginRequest{Name: b.UserName, Password: b.PassWord})
		if err != nil {
			return nil, err
		}
		return grant.Token, nil
	}))
	engine.POST("/user/checkAuth", seedRoute(a, "auth success", func(ctx context.Context, b seedSession) (any, error) {
		who, err := a.logic.Authenticate(ctx, &contract.AuthenticateRequest{Credential: b.credential()})
		if err != nil {
			return nil, err
		}
		return seedIdentity{UserID: who.User, UserName: who.Name}, nil
	}))
	engine.POST("/user/logout", seedRoute(a, "logout ok!", func(ctx context.Context, b seedSession) (any, error) {
		_, err := a.logic.Logout(ctx, &contract.LogoutRequest{Credential: b.credential()})
		return nil, err
	}))
	engine.POST("/push/push", seedRoute(a, "ok", func(ctx context.Context, b seedMessage) (any, error) {
		to, err := strconv.ParseUint(b.ToUserID, 10, 63) // digits alone: a sign is refused
		if err != nil || to == 0 {
			return nil, contract.Errorf(contract.BadRequest, "toUserId: want a string of digits")
		}
		_, err = a.logic.Send(ctx, &contract.SendRequest{Credential: b.credential(), Room: b.RoomID, To: contract.UserID(to), Text: b.Msg})
		return nil, err
	}))
	engine.POST("/push/pushRoom", seedRoute(a, "ok", func(ctx context.Context, b seedRoomMessage) (any, error) {
		_, err := a.logic.Send(ctx, &contract.SendRequest{Credential: b.credential(), Room: b.RoomID, Text: b.Msg})
		return "", err
	}))
	engine.POST("/push/count", seedRoute(a, "ok", func(ctx context.Context, b seedRoom) (any, error) {
		_, err := a.logic.Announce(ctx, &contract.AnnounceRequest{Credential: b.credential(), Room: b.RoomID})
		return "", err
	}))
	engine.POST("/push/getRoomInfo", seedRoute(a, "ok", func(ctx context.Context, b seedRoom) (any, error) {
		_, err := a.logic.Announce(ctx, &contract.AnnounceRequest{Credential: b.credential(), Room: b.RoomID, Names: true})
		return "", err
	}))
}

// seedRoute reads and checks the body, gives the call its deadline and wraps what it returns. The success message
// is said only if there was no error.
func seedRoute[B interface{ validate() error }](a *API, success string, call func(context.Context, B) (any, error)) gin.HandlerFunc {
	return func(c *gin.Context) {
		var body B
		err := readSeed(c.Request.Body, &body)
		if err == nil {
			err = body.validate()
		}
		var data any
		if err == nil {
			ctx, cancel := context.WithTimeout(c.Request.Context(), a.cfg.Timeout)
			defer cancel()
			data, err = call(ctx, body)
		}
		if err != nil {
			e := a.explain(c.Request.Context(), err)
			_, session := any(body).(interface{ credential() contract.Credential })
			if session && statusOf(e.Code) == http.StatusUnauthorized {
				c.Set(outcomeKey{}, http.StatusUnauthorized)
				c.JSON(http.StatusOK, envelope{Code: seedSessionError, Message: "Session error"})
				return
			}
			seedFail(c, e, statusOf(e.Code))
			return
		}
		c.JSON(http.StatusOK, envelope{Code: seedSuccess, Message: success, Data: data})
	}
}

func readSeed(r io.Reader, body any) error {
	raw, err := io.ReadAll(r)
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return contract.Errorf(contract.TooLarge, "the body is over %d bytes", tooLarge.Limit)
	}
	if err != nil {
		return contract.Errorf(contract.BadRequest, "the body could not be read")
	}
	if !utf8.Valid(raw) { // encoding/json would put U+FFFD in its place without a word
		return contract.Errorf(contract.BadRequest, "the body is not UTF-8")
	}
	err = json.Unmarshal(raw, body)
	var wrong *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &wrong) && wrong.Field != "":
		return contract.Errorf(contract.BadRequest, "%s: a %s is the wrong type", wrong.Field, wrong.Value)
	default:
		return contract.Errorf(contract.BadRequest, "the body is not a JSON object")
	}
}

// seedFail answers the failure. outcome is for the metrics alone: the client gets status 200.
func seedFail(c *gin.Context, e *contract.Error, outcome int) {
	c.Set(outcomeKey{}, outcome)
	message := e.Message
	if message == "" {
		message = "failed: " + string(e.Code)
	}
	c.JSON(http.StatusOK, envelope{Code: seedFailure, Message: message})
}
