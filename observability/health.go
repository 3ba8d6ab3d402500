package observability

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// checkLimit bounds each check of Health.
const checkLimit = 2 * time.Second

// Health is what a process needs to be ready, each thing by a name that says whose need it is: "logic: database".
// Its methods may be called concurrently.
type Health struct {
	mu     sync.Mutex
	checks map[string]*check
}

// check is asked by one goroutine at a time, and whoever asks meanwhile gets the same answer: one that never returns
// costs one goroutine, not one for each time it was asked.
type check struct {
	ask func(context.Context) error

	mu     sync.Mutex
	asking *answer // nil between questions
}

type answer struct {
	done chan struct{}
	err  error // once done is closed
}

// CheckResult is the state of one named thing.
type CheckResult struct {
	Name   string `json:"name"`
	Ready  bool   `json:"ready"`
	Reason string `json:"reason,omitempty"` // why not
}

// Readiness is what /readyz answers.
type Readiness struct {
	Ready  bool          `json:"ready"`
	Checks []CheckResult `json:"checks"`
}

// AskReadiness asks the admin server at the address, host:port. It fails if that does not answer within five seconds.
func AskReadiness(ctx context.Context, addr string) (Readiness, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", nil)
	if err != nil {
		return Readiness{}, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return Readiness{}, err
	}
	defer func() { _ = response.Body.Close() }()
	var answer Readiness
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil || len(answer.Checks) == 0 {
		return Readiness{}, fmt.Errorf("http://%s: %s, which is no answer of an admin server", addr, response.Status)
	}
	return answer, nil
}

// NewHealth is not ready until something was set or is watched.
func NewHealth() *Health { return &Health{checks: map[string]*check{}} }

// Set gives the state of name until the next Set or Watch of it: nil is ready, an error the reason why not.
func (h *Health) Set(name string, err error) {
	h.Watch(name, func(context.Context) error { return err })
}

// Watch asks ready for the state of name each time somebody wants to know, until the next Set or Watch of it. The
// context given to ready ends after two seconds; ready must return soon after.
func (h *Health) Watch(name string, ready func(context.Context) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.checks[name] = &check{ask: ready}
}

// Check asks for every state at once and answers within two seconds, by name. The process is ready if there is
// anything in it and all of it is ready.
func (h *Health) Check(ctx context.Context) (results []CheckResult, ready bool) {
	h.mu.Lock()
	answers := make(map[string]*answer, len(h.checks))
	for name, c := range h.checks {
		answers[name] = c.start(ctx)
	}
	h.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	ready = len(answers) > 0
	for name, a := range answers {
		result := CheckResult{Name: name, Ready: true}
		if err := a.wait(ctx); err != nil {
			ready = false
			result.Ready, result.Reason = false, err.Error()
		}
		results = append(results, result)
	}
	slices.SortFunc(results, func(a, b CheckResult) int { return strings.Compare(a.Name, b.Name) })
	return results, ready
}

func (c *check) start(ctx context.Context) *answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asking != nil {
		return c.asking
	}
	a := &answer{done: make(chan struct{})}
	c.asking = a
	go func() {
		// Not ended with the request that came first: others may wait for the same answer.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), checkLimit)
		defer cancel()
		a.err = c.ask(ctx)
		c.mu.Lock()
		c.asking = nil
		c.mu.Unlock()
		close(a.done)
	}()
	return a
}

func (a *answer) wait(ctx context.Context) error {
	select {
	case <-a.done:
		return a.err
	case <-ctx.Done():
		return errors.New("no answer in time")
	}
}
