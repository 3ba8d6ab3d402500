package where

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"gochat/layers/internal/contract"
)

// Pattern is where Handler is to be mounted.
const Pattern = "GET " + path + "{id}"

const path = "/admin/v1/messages/"

// Handler answers where a message is: 200 with an Answer; 400 if the id is none; 404 if no message has it (not_found), or
// what became of it is not on record any more (expired); 503 if no logic node answers.
func Handler(logics Logics, tasks Tasks, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, err := parseID(r.PathValue("id"))
		if err != nil {
			write(w, problem(http.StatusBadRequest, string(contract.BadRequest), err.Error()))
			return
		}
		answer, err := ask(r.Context(), logics, tasks, id)
		if err != nil {
			log.WarnContext(r.Context(), "where a message is not answered", "msg_id", id, "err", err)
			write(w, problem(http.StatusServiceUnavailable, string(contract.Unavailable), contract.AsError(err).Message))
			return
		}
		switch answer.State {
		case Unknown:
			p := problem(http.StatusNotFound, string(contract.NotFound), answer.Says)
			p.RecordsSince = answer.RecordsSince
			write(w, p)
		case Expired:
			p := problem(http.StatusNotFound, string(Expired), answer.Says)
			p.RecordsSince, p.Message = answer.RecordsSince, answer
			write(w, p)
		default:
			writeJSON(w, http.StatusOK, "application/json", answer)
		}
	})
}

// parseID reads an id as it is written: digits alone.
func parseID(s string) (contract.MessageID, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n <= 0 || strconv.FormatInt(n, 10) != s {
		return 0, fmt.Errorf("%.40q is no message id: want a number as in the id of a message", s)
	}
	return contract.MessageID(n), nil
}

func problem(status int, code, detail string) *Problem {
	return &Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail, Code: code}
}

func write(w http.ResponseWriter, p *Problem) {
	if p.Status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", strconv.Itoa(int(time.Second.Seconds())))
	}
	writeJSON(w, p.Status, "application/problem+json", p)
}

func writeJSON(w http.ResponseWriter, status int, contentType string, v any) {
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(v) // fails only if the client has left
}
