package observability

import (
	"cmp"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Metric says what a metric is, whether or not there is a series of it yet.
type Metric struct {
	Name   string   `json:"name"`
	Type   string   `json:"type"` // counter, gauge, histogram or summary
	Help   string   `json:"help"`
	Labels []string `json:"labels,omitempty"` // that its series have besides those of the scrape, sorted
}

// catalog has every metric that was registered with the process. /metrics has those alone of which there is a series.
type catalog struct {
	mu      sync.Mutex
	metrics map[string]Metric
}

// noting is a Registerer that has the catalog know what it registers, with these labels more.
type noting struct {
	prometheus.Registerer
	catalog *catalog
	labels  []string
}

// Register implements prometheus.Registerer.
func (n noting) Register(c prometheus.Collector) error {
	if err := n.Registerer.Register(c); err != nil {
		return err
	}
	n.catalog.note(c, n.labels)
	return nil
}

// MustRegister implements prometheus.Registerer.
func (n noting) MustRegister(all ...prometheus.Collector) {
	for _, c := range all {
		if err := n.Register(c); err != nil {
			panic(err)
		}
	}
}

// describedAs is how a prometheus.Desc prints itself; it says no other way what it describes.
var describedAs = regexp.MustCompile(`^Desc\{fqName: ("(?:[^"\\]|\\.)*"), help: ("(?:[^"\\]|\\.)*"), (?:unit: "(?:[^"\\]|\\.)*", )?constLabels: \{(.*)\}, variableLabels: \{(.*)\}\}$`)

// note adds what the collector may ever have. What has nothing to show now and is no vector is taken for a gauge.
func (c *catalog) note(of prometheus.Collector, labels []string) {
	types := make(map[string]string) // by description, of what there is
	vector := ""
	switch of.(type) {
	case *prometheus.CounterVec:
		vector = "counter"
	case *prometheus.GaugeVec:
		vector = "gauge"
	case *prometheus.HistogramVec:
		vector = "histogram"
	case *prometheus.SummaryVec:
		vector = "summary"
	default:
		for m := range drained(of.Collect) {
			var now dto.Metric
			if m.Write(&now) == nil {
				types[m.Desc().String()] = typeOf(&now)
			}
		}
	}
	for d := range drained(of.Describe) {
		parts := describedAs.FindStringSubmatch(d.String())
		if parts == nil {
			continue // an invalid one, of which the registry has said so
		}
		m := Metric{Type: cmp.Or(vector, types[d.String()], "gauge"), Labels: slices.Clone(labels)}
		m.Name, _ = strconv.Unquote(parts[1])
		m.Help, _ = strconv.Unquote(parts[2])
		for _, pair := range labelNames.FindAllStringSubmatch(parts[3], -1) {
			m.Labels = append(m.Labels, pair[1])
		}
		if parts[4] != "" {
			m.Labels = append(m.Labels, strings.Split(parts[4], ",")...)
		}
		c.add(m)
	}
}

var labelNames = regexp.MustCompile(`(?:^|,)([a-zA-Z_][a-zA-Z0-9_]*)="(?:[^"\\]|\\.)*"`)

// drained has what f sends before it returns.
func drained[T any](f func(chan<- T)) func(yield func(T) bool) {
	return func(yield func(T) bool) {
		all := make(chan T)
		go func() { f(all); close(all) }()
		going := true
		for one := range all { // to its end, for f to return
			going = going && yield(one)
		}
	}
}

func typeOf(m *dto.Metric) string {
	switch {
	case m.Counter != nil:
		return "counter"
	case m.Histogram != nil:
		return "histogram"
	case m.Summary != nil:
		return "summary"
	}
	return "gauge"
}

func (c *catalog) add(m Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m.Labels = append(m.Labels, c.metrics[m.Name].Labels...)
	slices.Sort(m.Labels)
	m.Labels = slices.Compact(m.Labels)
	c.metrics[m.Name] = m
}

// all are the metrics by name.
func (c *catalog) all() []Metric {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.SortedFunc(maps.Values(c.metrics), func(a, b Metric) int { return cmp.Compare(a.Name, b.Name) })
}

func (c *catalog) serve(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, c.all())
}

// registerer is what a part of the process registers its metrics with.
func (o *Observability) registerer(layer string) prometheus.Registerer {
	if layer == "" {
		return noting{o.registry, o.catalog, nil}
	}
	return noting{prometheus.WrapRegistererWith(prometheus.Labels{"layer": layer}, o.registry), o.catalog, []string{"layer"}}
}
