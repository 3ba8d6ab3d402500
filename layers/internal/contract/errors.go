package contract

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Code is the word by which a client knows an error, the same on every transport. Codes are appended, never
// renamed.
type Code string

const (
	BadRequest      Code = "bad_request"
	Unauthenticated Code = "unauthenticated"
	Forbidden       Code = "forbidden"
	NotFound        Code = "not_found"
	Conflict        Code = "conflict"
	TooLarge        Code = "too_large"
	RateLimited     Code = "rate_limited"
	Unavailable     Code = "unavailable"
	SessionEnded    Code = "session_ended"
	Replaced        Code = "replaced"
	SlowConsumer    Code = "slow_consumer"
	Internal        Code = "internal"
)

// Codes are all of them.
func Codes() []Code {
	return []Code{BadRequest, Unauthenticated, Forbidden, NotFound, Conflict, TooLarge, RateLimited, Unavailable, SessionEnded, Replaced,
		SlowConsumer, Internal}
}

// Error is an error that a client may see: a code word and a sentence. Whatever else is known of the failure
// stays in the log of the process where it happened.
type Error struct {
	Code       Code
	Message    string
	RetryAfter time.Duration // when another try may succeed; 0 if nothing is known
}

func (e *Error) Error() string { return string(e.Code) + ": " + e.Message }

// Errorf makes an Error. Its text reaches clients: it names what was wrong, never a secret.
func Errorf(code Code, format string, args ...any) error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// RetryLater is Errorf with the time after which another try may succeed.
func RetryLater(code Code, after time.Duration, format string, args ...any) error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...), RetryAfter: after}
}

// AsError is what of err may cross to a client: the Error it wraps; Unavailable for a deadline or an ended
// context; else Internal, without the text. It is nil for nil.
func AsError(err error) *Error {
	var e *Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e):
		return e
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return &Error{Code: Unavailable, Message: "not answered in time, try again", RetryAfter: time.Second}
	default:
		return &Error{Code: Internal, Message: "internal error"}
	}
}

// CodeOf is the code of AsError(err); "" for nil.
func CodeOf(err error) Code {
	if e := AsError(err); e != nil {
		return e.Code
	}
	return ""
}
