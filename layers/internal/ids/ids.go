// Package ids makes message ids that no two processes ever make alike.
package ids

import (
	"fmt"
	"sync"
	"time"

	"github.com/bwmarrin/snowflake"

	"gochat/layers/internal/contract"
)

const (
	// patience is how long Next waits for a clock that has stepped back to catch up.
	patience = 50 * time.Millisecond
	// timeShift is the place of the millisecond in an id: above 10 bits of number and 12 of step.
	timeShift = 22
)

// Source makes the ids of one process. Its methods may be called from any goroutine.
type Source struct {
	number func() (int, bool)

	mu   sync.Mutex
	held int             // the number that node was made for
	node *snowflake.Node // nil before the first id
	last int64           // the highest millisecond used under any number, since the library's epoch
}

// New makes a Source. Number answers the leased node number, in [0,1024), and false while there is none; it must
// turn false before another process could be given the number. It is asked for every id and must not block.
func New(number func() (int, bool)) *Source { return &Source{number: number} }

// Next makes an id, unique over all processes whose clocks run within a lease of one another, and above every id
// that this source made in an earlier millisecond. Unavailable while there is no number, or while the clock is
// behind what was used before; it waits for the clock for 50 ms at most, and else only for the millisecond to end
// in which 4096 ids were made.
func (s *Source) Next() (contract.MessageID, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	number, ok := s.number()
	if !ok {
		return 0, contract.RetryLater(contract.Unavailable, time.Second, "no message ids at the moment, try again")
	}
	if s.node == nil || s.held != number {
		// A node's clock is monotonic, so time can only be behind where a node is new.
		node, err := s.newNode(number)
		if err != nil {
			return 0, err
		}
		s.node, s.held = node, number
	}
	id := s.node.Generate()
	s.last = int64(id) >> timeShift
	return contract.MessageID(id), nil
}

// Time is when an id was made, to the millisecond: by the clock of the process that made it.
func Time(id contract.MessageID) time.Time {
	return time.UnixMilli(snowflake.Epoch + int64(id)>>timeShift).UTC()
}

// newNode makes a node whose ids follow all that were made before. A number that comes back after a clock that
// stepped back would else repeat them.
func (s *Source) newNode(number int) (*snowflake.Node, error) {
	if wait := s.behind(); wait > patience {
		return nil, contract.RetryLater(contract.Unavailable, wait, "the clock has stepped back, try again")
	} else if wait > 0 {
		time.Sleep(wait)
	}
	if wait := s.behind(); wait > 0 {
		return nil, contract.RetryLater(contract.Unavailable, wait, "the clock has stepped back, try again")
	}
	node, err := snowflake.NewNode(int64(number))
	if err != nil {
		return nil, fmt.Errorf("node number %d: %w", number, err)
	}
	return node, nil
}

// behind is how long it takes the clock to pass the last millisecond used.
func (s *Source) behind() time.Duration {
	return time.Until(time.UnixMilli(snowflake.Epoch + s.last + 1))
}
