package observability

import (
	"encoding/json"
	"net/http/httptest"
	"reflect"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// later is a collector that has nothing to show yet.
type later struct{ desc *prometheus.Desc }

func (l later) Describe(to chan<- *prometheus.Desc) { to <- l.desc }
func (later) Collect(chan<- prometheus.Metric)      {}

// TestCatalog registers a metric of each kind, most without a series: the catalog has all, with what there is to know.
func TestCatalog(t *testing.T) {
	o, err := Setup(t.Context(), DefaultConfig(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	tel, err := o.Layer("connect", "connect-1")
	if err != nil {
		t.Fatal(err)
	}
	with := promauto.With(tel.Metrics)
	with.NewCounterVec(prometheus.CounterOpts{Name: "test_vec_total", Help: `of "b", and {a}: \`}, []string{"b", "a"})
	with.NewGaugeVec(prometheus.GaugeOpts{Name: "test_gauges", Help: "g"}, []string{"x"})
	with.NewHistogramVec(LatencyOpts("test_vec_seconds", "h"), []string{"op"})
	with.NewSummaryVec(prometheus.SummaryOpts{Name: "test_summaries", Help: "s"}, []string{"x"})
	with.NewCounter(prometheus.CounterOpts{Name: "test_total", Help: "c", ConstLabels: prometheus.Labels{"stage": `a="b",c`, "kind": "x"}})
	with.NewGauge(prometheus.GaugeOpts{Name: "test_gauge", Help: "g"})
	with.NewHistogram(LatencyOpts("test_seconds", "h"))
	with.NewSummary(prometheus.SummaryOpts{Name: "test_summary", Help: "s"})
	tel.Metrics.MustRegister(later{prometheus.NewDesc("test_later", "l", []string{"room"}, nil)})
	NewStage(tel.Metrics, StagePush)
	NewStage(tel.Metrics, StageWrite)

	want := map[string]Metric{
		"test_vec_total":   {Type: "counter", Help: `of "b", and {a}: \`, Labels: []string{"a", "b", "layer"}},
		"test_gauges":      {Type: "gauge", Help: "g", Labels: []string{"layer", "x"}},
		"test_vec_seconds": {Type: "histogram", Help: "h", Labels: []string{"layer", "op"}},
		"test_summaries":   {Type: "summary", Help: "s", Labels: []string{"layer", "x"}},
		"test_total":       {Type: "counter", Help: "c", Labels: []string{"kind", "layer", "stage"}},
		"test_gauge":       {Type: "gauge", Help: "g", Labels: []string{"layer"}},
		"test_seconds":     {Type: "histogram", Help: "h", Labels: []string{"layer"}},
		"test_summary":     {Type: "summary", Help: "s", Labels: []string{"layer"}},
		"test_later":       {Type: "gauge", Help: "l", Labels: []string{"layer", "room"}},
		"gochat_message_stage_seconds": {Type: "histogram", Help: "How long a message took for one stage of its way.",
			Labels: []string{"layer", "stage"}},
		"gochat_build_info": {Type: "gauge", Help: "1, labelled with what was built.", Labels: []string{"goversion", "revision", "version"}},
		"go_goroutines":     {Type: "gauge", Help: "Number of goroutines that currently exist."},
	}
	answer := httptest.NewRecorder()
	o.catalog.serve(answer, nil)
	var all []Metric
	if err := json.Unmarshal(answer.Body.Bytes(), &all); err != nil {
		t.Fatal(err)
	}
	got := make(map[string]Metric)
	for _, m := range all {
		if _, twice := got[m.Name]; twice {
			t.Errorf("%s is there twice", m.Name)
		}
		got[m.Name] = m
	}
	for name, m := range want {
		m.Name = name
		if !reflect.DeepEqual(got[name], m) {
			t.Errorf("got %+v, want %+v", got[name], m)
		}
	}
	families, err := o.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if _, has := got[f.GetName()]; !has {
			t.Errorf("the registry has %s, the catalog not", f.GetName())
		}
	}

	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "test_gauge", Help: "another"})
	if err := tel.Metrics.Register(c); err == nil {
		t.Error("a second metric of that name is registered")
	}
}
