package session

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gochat/layers/internal/contract"
	"gochat/observability"
)

func TestMetrics(t *testing.T) {
	b := newMiniredis(t)
	tel := observability.Discard()
	reg := tel.Metrics.(*prometheus.Registry)
	s, err := Open(b.cfg, tel)
	if err != nil {
		t.Fatal(err)
	}
	create(t, s, 7, time.Now())
	if _, err := s.Get(t.Context(), HashToken("none")); contract.CodeOf(err) != contract.Unauthenticated {
		t.Fatal(err)
	}
	hungUp, cancel := context.WithCancel(t.Context())
	cancel()
	_ = s.Ping(hungUp) // the caller's doing: no error of Redis
	late, cancel := context.WithDeadline(t.Context(), time.Now())
	defer cancel()
	_ = s.End(late, HashToken("none"))

	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			got[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	for name, want := range map[string]float64{
		"gochat_session_store_seconds create":      1,
		"gochat_session_store_seconds get":         1,
		"gochat_session_store_seconds list":        0,
		"gochat_session_store_errors_total get":    0,
		"gochat_session_store_errors_total ping":   0,
		"gochat_session_store_errors_total end":    1,
		"gochat_session_store_pool_timeouts_total": 0,
		"gochat_session_store_connections":         1,
		"gochat_session_store_seconds ping":        1,
	} {
		if value, ok := got[name]; !ok || value != want {
			t.Errorf("%s: got %v (%v), want %v", name, value, ok, want)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
