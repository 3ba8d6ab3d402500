package connect

import "slices"

// spans are seqs, as ascending runs.
type spans []span

type span struct{ first, last int64 }

// maxSpans bounds what is kept. What is between the two lowest runs then counts as had by them.
const maxSpans = 32

// end is the highest of them, 0 if there is none.
func (s spans) end() int64 {
	if len(s) == 0 {
		return 0
	}
	return s[len(s)-1].last
}

func (s spans) has(seq int64) bool {
	return slices.ContainsFunc(s, func(run span) bool { return run.first <= seq && seq <= run.last })
}

// add takes a seq above end.
func (s *spans) add(seq int64) {
	if n := len(*s); n > 0 && seq == s.end()+1 {
		(*s)[n-1].last = seq
		return
	}
	*s = append(*s, span{seq, seq})
	if len(*s) > maxSpans {
		(*s)[1].first = (*s)[0].first
		*s = slices.Delete(*s, 0, 1)
	}
}
