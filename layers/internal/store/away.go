package store

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"gochat/layers/internal/contract"
)

// errAway is what callers, and their clients, learn of a database that is away.
var errAway = contract.RetryLater(contract.Unavailable, time.Second, "the database does not answer")

// orAway is the error, which is errAway too if it is that the database is away.
func orAway(err error) error {
	if !away(err) || errors.Is(err, errAway) {
		return err
	}
	return fmt.Errorf("%w: %w", errAway, err)
}

// away reports whether the error is that the server could not be reached, was lost or had no room for the caller, so
// that a later try may succeed. What the server says against a statement, or against who asks, is not: it stays wrong.
func away(err error) bool {
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		switch code := refused.Code; {
		case strings.HasPrefix(code, "08"), strings.HasPrefix(code, "53"): // connection lost; no room or memory
			return true
		default: // shut down, crashed, starting; not that the database was dropped
			return strings.HasPrefix(code, "57P") && code != "57P04"
		}
	}
	var unreachable *pgconn.ConnectError
	var broken *net.OpError
	return errors.As(err, &unreachable) || errors.As(err, &broken) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, driver.ErrBadConn) || err != nil && pgconn.SafeToRetry(err)
}
