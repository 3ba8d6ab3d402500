package where

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Options say what Run asks, and whom.
type Options struct {
	Message string
	Admin   string // base URL of the admin server of a process that runs api, logic, connect or task
	JSON    bool   // prints what that has answered
}

// UsageError is a mistake in Options.
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() }

func (e *UsageError) Unwrap() error { return e.Err }

const (
	commandLimit = 30 * time.Second
	answerLimit  = 4 << 20 // bytes
)

// Run asks where a message is and prints it. It fails with a *UsageError before it has asked, and with any other error if
// it cannot ask, or if the message is unknown or has expired; of one that has expired it prints what is still known.
func Run(ctx context.Context, o Options, out io.Writer) error {
	id, err := parseID(o.Message)
	if err != nil {
		return &UsageError{err}
	}
	base, err := url.Parse(o.Admin)
	if err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Host == "" {
		return &UsageError{fmt.Errorf("--admin: %q: want http://HOST:PORT", o.Admin)}
	}
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	status, body, err := get(ctx, strings.TrimSuffix(o.Admin, "/")+path+id.String())
	if err != nil {
		return fmt.Errorf("ask where message %s is: %w", id, err)
	}
	if o.JSON {
		if _, err := out.Write(body); err != nil {
			return fmt.Errorf("print: %w", err)
		}
	}
	if status == http.StatusOK {
		var a Answer
		if err := json.Unmarshal(body, &a); err != nil {
			return fmt.Errorf("%s answers what is no answer: %w", o.Admin, err)
		}
		if o.JSON {
			return nil
		}
		return show(out, &a)
	}
	var p Problem
	if json.Unmarshal(body, &p) != nil || p.Code == "" {
		return fmt.Errorf("%s answers %d: it does not know where messages are", o.Admin, status)
	}
	if p.Message != nil && !o.JSON {
		if err := show(out, p.Message); err != nil {
			return err
		}
	}
	return fmt.Errorf("message %s: %s", id, p.Detail)
}

func get(ctx context.Context, url string) (status int, body []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = response.Body.Close() }() // it was read
	body, err = io.ReadAll(io.LimitReader(response.Body, answerLimit+1))
	if err == nil && len(body) > answerLimit {
		err = errors.New("the answer has no end")
	}
	return response.StatusCode, body, err
}
