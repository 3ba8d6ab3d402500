package connect

import "testing"

// TestSpans adds more runs than are kept.
func TestSpans(t *testing.T) {
	var s spans
	if s.end() != 0 || s.has(0) || s.has(1) {
		t.Errorf("without any: end %d", s.end())
	}
	for run := range int64(maxSpans + 1) { // 11, 12, 21, 22, …
		s.add(10*run + 11)
		s.add(10*run + 12)
	}
	if len(s) != maxSpans {
		t.Errorf("%d runs are kept, want %d", len(s), maxSpans)
	}
	for seq, want := range map[int64]bool{
		10: false, 11: true, 12: true, 13: true, 20: true, 22: true, // the two lowest are one
		23: false, 30: false, 31: true, 32: true, 33: false, s.end(): true, s.end() + 1: false,
	} {
		if got := s.has(seq); got != want {
			t.Errorf("%d: got %v, want %v", seq, got, want)
		}
	}
}
