package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is what a run has measured. Its JSON form is what --json writes and compare reads.
type Report struct {
	Scenario    string         `json:"scenario"`
	Transport   string         `json:"transport"`
	Started     time.Time      `json:"started"`
	Load        map[string]any `json:"load"` // the options that make it
	Interrupted bool           `json:"interrupted"`
	Connections Connections    `json:"connections"`
	Phases      []*Phase       `json:"phases,omitempty"`
	Idle        *Stay          `json:"idle,omitempty"`
	Churn       *Rounds        `json:"churn,omitempty"`
	// Reference is the bare write loop; its one process is the child.
	Reference *Phase `json:"reference,omitempty"`
	// Notes say in sentences what to know of the numbers.
	Notes []string `json:"notes,omitempty"`
	// Faults say in sentences why the run is not clean.
	Faults []string `json:"faults,omitempty"`
}

// Connections is how they came up and what they met.
type Connections struct {
	Wanted  int            `json:"wanted"`
	Up      int            `json:"up"`
	Failed  int            `json:"failed"`
	Took    float64        `json:"took_s"` // until the last was up or had failed; the longest, if they came several times
	Dial    Latency        `json:"dial"`   // until authenticated and in the room
	Answers int            `json:"pings_answered"`
	Errors  map[string]int `json:"errors,omitempty"` // by code word
	Closes  map[string]int `json:"closes,omitempty"` // by reason
}

// Latency is a distribution in milliseconds.
type Latency struct {
	Count int64   `json:"count"`
	Mean  float64 `json:"mean_ms"`
	P50   float64 `json:"p50_ms"`
	P90   float64 `json:"p90_ms"`
	P99   float64 `json:"p99_ms"`
	P999  float64 `json:"p999_ms"`
	Max   float64 `json:"max_ms"`
}

func (d distribution) latency() Latency {
	if d.TotalCount() == 0 {
		return Latency{}
	}
	ms := func(ns float64) float64 { return ns / float64(time.Millisecond) }
	at := func(q float64) float64 { return ms(float64(d.ValueAtQuantile(q))) }
	return Latency{
		Count: d.TotalCount(), Mean: ms(d.Mean()), P50: at(50), P90: at(90), P99: at(99), P999: at(99.9), Max: ms(float64(d.Max())),
	}
}

// Phase is one exchange of messages.
type Phase struct {
	Name         string  `json:"name"`
	Took         float64 `json:"took_s"` // from the first message to the last delivery
	Due          int64   `json:"due"`    // messages that the rate asks for
	Sent         int64   `json:"sent"`
	Acknowledged int64   `json:"acknowledged"`
	Refused      int64   `json:"refused"`
	Expected     int64   `json:"expected"` // deliveries of what was sent and not refused
	Received     int64   `json:"received"` // each once
	Lost         int64   `json:"lost"`
	Duplicated   int64   `json:"duplicated"`
	Unexpected   int64   `json:"unexpected"`
	Echoed       int64   `json:"echoed"` // private messages that came back to the connection that sent them
	Rate         float64 `json:"deliveries_per_s"`
	Delivery     Latency `json:"delivery"` // from due to received
	Ack          Latency `json:"ack"`      // from due to acknowledged
	Lag          Latency `json:"lag"`      // from due to sent: the generator's own lateness
	FrameBytes   int     `json:"frame_bytes"`
	Silent       int     `json:"silent,omitempty"`        // members who never read
	SilentClosed int     `json:"silent_closed,omitempty"` // of whom the server has closed
	SilentBytes  int64   `json:"silent_bytes,omitempty"`  // that each would have got, about
	Use          Use     `json:"use"`
}

// Use is what processes have used meanwhile.
type Use struct {
	Processes []ProcessUse `json:"processes,omitempty"`
	CPU       float64      `json:"cpu_s"`                   // of all processes
	Each      float64      `json:"cpu_us_per_delivery"`     // of all processes
	Generator float64      `json:"generator_cpu_s"`         // of the load tool
	GenEach   float64      `json:"generator_us_per_deliv"`  // of the load tool
	Wall      float64      `json:"wall_s"`                  // over which it was measured
	GenShare  float64      `json:"generator_share_of_core"` // until all had come; 1 is one core, all the time: the tool is the bottleneck
}

// ProcessUse is what one has used, with its descendants.
type ProcessUse struct {
	Name string  `json:"name"`
	CPU  float64 `json:"cpu_s"`
	Each float64 `json:"cpu_us_per_delivery"`
	RSS  int64   `json:"rss_bytes"`      // at the end
	Peak int64   `json:"rss_peak_bytes"` // the most, seen once a second
	// Grown is how much RSS has grown for each connection, in bytes, where connections stayed.
	Grown float64 `json:"rss_bytes_per_connection,omitempty"`
}

// Stay is how connections were held.
type Stay struct {
	Held float64 `json:"held_s"`
	Up   int     `json:"up"`   // at the end
	Mute int     `json:"mute"` // of whom have not answered a ping then
	Use  Use     `json:"use"`
}

// Rounds is how connections came and went.
type Rounds struct {
	Rounds []Round `json:"rounds"`
	Users  int     `json:"users"` // that the count must grow and shrink by
	Use    Use     `json:"use"`
}

// Round is all connections coming and going once.
type Round struct {
	Up      int     `json:"up"`
	UpAfter float64 `json:"up_s"`       // until all were authenticated
	Counted float64 `json:"counted_s"`  // from then until the server's count was right; -1 if it was not in time
	Gone    float64 `json:"gone_s"`     // from the closing until the server's count was right; -1 if it was not in time
	Rate    float64 `json:"up_per_sec"` // connections a second
}

// metric is one number of a report.
type metric struct {
	group, name string
	value       float64
	unit        string
}

// metrics lists the numbers of the report in the order of its table.
func (r *Report) metrics() []metric {
	var all []metric
	group := ""
	add := func(name string, value float64, unit string) {
		all = append(all, metric{group: group, name: name, value: value, unit: unit})
	}
	latency := func(name string, l Latency) {
		if l.Count == 0 {
			return
		}
		add(name+" p50", l.P50, "ms")
		add(name+" p90", l.P90, "ms")
		add(name+" p99", l.P99, "ms")
		add(name+" p99.9", l.P999, "ms")
		add(name+" max", l.Max, "ms")
	}
	use := func(u Use, deliveries bool) {
		for _, p := range u.Processes {
			add("CPU of "+p.Name, p.CPU, "s")
			if deliveries {
				add("CPU of "+p.Name+" a delivery", p.Each, "µs")
			}
			add("RSS of "+p.Name, float64(p.RSS)/(1<<20), "MiB")
			add("RSS of "+p.Name+", most", float64(p.Peak)/(1<<20), "MiB")
			if p.Grown != 0 {
				add("RSS of "+p.Name+" a connection", p.Grown/(1<<10), "KiB")
			}
		}
		if len(u.Processes) > 0 && deliveries {
			add("CPU a delivery, all processes", u.Each, "µs")
		}
		if deliveries {
			add("CPU a delivery, generator", u.GenEach, "µs")
		}
		add("generator's share of a core", u.GenShare, "")
	}
	phase := func(p *Phase) {
		group = p.Name
		add("sent", float64(p.Sent), "")
		add("acknowledged", float64(p.Acknowledged), "")
		add("refused", float64(p.Refused), "")
		add("deliveries expected", float64(p.Expected), "")
		add("deliveries received", float64(p.Received), "")
		add("deliveries lost", float64(p.Lost), "")
		add("deliveries duplicated", float64(p.Duplicated), "")
		add("deliveries unexpected", float64(p.Unexpected), "")
		if p.Echoed > 0 {
			add("echoed to their sender", float64(p.Echoed), "")
		}
		add("deliveries a second", p.Rate, "/s")
		add("bytes of a frame", float64(p.FrameBytes), "B")
		latency("delivery", p.Delivery)
		latency("ack", p.Ack)
		if p.Lag.Count > 0 {
			add("sent late p99", p.Lag.P99, "ms")
		}
		if p.Silent > 0 {
			add("members who never read", float64(p.Silent), "")
			add("of whom the server closed", float64(p.SilentClosed), "")
			add("sent to each of them, about", float64(p.SilentBytes)/(1<<20), "MiB")
		}
		use(p.Use, true)
	}
	group = "connections"
	add("wanted", float64(r.Connections.Wanted), "")
	add("up", float64(r.Connections.Up), "")
	add("failed", float64(r.Connections.Failed), "")
	add("all up after", r.Connections.Took, "s")
	latency("dial", r.Connections.Dial)
	add("pings answered", float64(r.Connections.Answers), "")
	for _, p := range r.Phases {
		phase(p)
	}
	if r.Scenario == Slow && len(r.Phases) == 2 && r.Phases[0].Delivery.P99 > 0 && r.Phases[1].Delivery.Count > 0 {
		add("delivery p99 beside them / without", r.Phases[1].Delivery.P99/r.Phases[0].Delivery.P99, "×")
	}
	if i := r.Idle; i != nil {
		group = Idle
		add("held", i.Held, "s")
		add("up at the end", float64(i.Up), "")
		add("of whom did not answer a ping", float64(i.Mute), "")
		use(i.Use, false)
	}
	if c := r.Churn; c != nil {
		group = Churn
		add("rounds", float64(len(c.Rounds)), "")
		add("users that are counted", float64(c.Users), "")
		of := func(name, unit string, pick func(Round) float64) {
			if values := c.sorted(pick); len(values) > 0 {
				add(name+", median", values[len(values)/2], unit)
				add(name+", worst", values[len(values)-1], unit)
			}
		}
		of("all up after", "s", func(r Round) float64 { return r.UpAfter })
		of("count right after coming", "s", func(r Round) float64 { return r.Counted })
		of("count right after going", "s", func(r Round) float64 { return r.Gone })
		use(c.Use, false)
	}
	if r.Reference != nil {
		phase(r.Reference)
		if len(r.Phases) > 0 && r.Reference.Use.Each > 0 && len(r.Phases[0].Use.Processes) > 0 {
			add("CPU a delivery, system / reference", r.Phases[0].Use.Each/r.Reference.Use.Each, "×")
		}
	}
	return all
}

func (c *Rounds) sorted(pick func(Round) float64) []float64 {
	values := make([]float64, 0, len(c.Rounds))
	for _, r := range c.Rounds {
		if v := pick(r); v >= 0 { // else it was not in time, which is a fault
			values = append(values, v)
		}
	}
	slices.Sort(values)
	return values
}

// print writes the table.
func (r *Report) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprint(t, r.title())
	for _, name := range slices.Sorted(maps.Keys(r.Load)) {
		fmt.Fprintf(t, ", %s %v", name, r.Load[name])
	}
	fmt.Fprintln(t)
	group := ""
	for _, m := range r.metrics() {
		if m.group != group {
			group = m.group
			fmt.Fprintf(t, "%s\n", group)
		}
		fmt.Fprintf(t, "  %s\t%s\n", m.name, amount(m.value, m.unit))
	}
	for _, counts := range []struct {
		name string
		of   map[string]int
	}{{"errors", r.Connections.Errors}, {"closes", r.Connections.Closes}} {
		if len(counts.of) > 0 {
			fmt.Fprintln(t, counts.name)
		}
		for _, word := range slices.Sorted(maps.Keys(counts.of)) {
			fmt.Fprintf(t, "  %s\t%d\n", word, counts.of[word])
		}
	}
	for _, sentences := range []struct {
		name string
		of   []string
	}{{"notes", r.Notes}, {"faults", r.Faults}} {
		for i, s := range sentences.of {
			if i == 0 {
				fmt.Fprintln(t, sentences.name)
			}
			fmt.Fprintf(t, "  %s\n", s)
		}
	}
	return t.Flush()
}

// title says what ran, and whether to its end.
func (r *Report) title() string {
	if r.Interrupted {
		return fmt.Sprintf("%s over %s, interrupted", r.Scenario, r.Transport)
	}
	return fmt.Sprintf("%s over %s", r.Scenario, r.Transport)
}

// amount is a number as a person reads it: whole ones as they are, others with three digits or more.
func amount(v float64, unit string) string {
	s := fmt.Sprintf("%.0f", v)
	if v != float64(int64(v)) {
		switch abs := max(v, -v); {
		case abs < 1:
			s = fmt.Sprintf("%.3f", v)
		case abs < 100:
			s = fmt.Sprintf("%.2f", v)
		case abs < 1000:
			s = fmt.Sprintf("%.1f", v)
		}
	}
	if unit == "" {
		return s
	}
	return s + " " + unit
}

// save writes the report as JSON.
func (r *Report) save(path string) error {
	content, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode report: %w", err)
	}
	if err := os.WriteFile(path, append(content, '\n'), 0o644); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

func load(path string) (*Report, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read report: %w", err)
	}
	r := new(Report)
	if err := json.Unmarshal(content, r); err != nil {
		return nil, fmt.Errorf("read report %s: %w", path, err)
	}
	if !slices.Contains(Scenarios(), r.Scenario) {
		return nil, fmt.Errorf("read report %s: it is not one of gochat bench", path)
	}
	return r, nil
}

// fault adds a sentence unless n is 0.
func (r *Report) fault(n int64, format string, args ...any) {
	if n != 0 {
		r.Faults = append(r.Faults, fmt.Sprintf(format, args...))
	}
}

// judge adds what is wrong with a run that is over.
func (r *Report) judge() {
	r.judgeConnections()
	for _, p := range r.Phases {
		r.judgePhase(p)
	}
	if r.Reference != nil {
		r.judgePhase(r.Reference)
	}
	if i := r.Idle; i != nil && !r.Interrupted {
		r.fault(int64(i.Mute), "%d of %d connections that were up did not answer a ping at the end", i.Mute, i.Up)
	}
}

// judgePhase adds what is wrong with a phase.
func (r *Report) judgePhase(p *Phase) {
	r.fault(p.Lost, "%s: %d of %d deliveries were lost", p.Name, p.Lost, p.Expected)
	r.fault(p.Duplicated, "%s: %d deliveries came twice", p.Name, p.Duplicated)
	r.fault(p.Unexpected, "%s: %d deliveries were not expected", p.Name, p.Unexpected)
	if missing := p.Sent - p.Acknowledged - p.Refused; missing != 0 {
		r.fault(missing, "%s: %d of %d messages were neither acknowledged nor refused", p.Name, missing, p.Sent)
	}
	if !r.Interrupted {
		r.fault(p.Due-p.Sent, "%s: %d of %d messages were not sent in time", p.Name, p.Due-p.Sent, p.Due)
	}
}

// judgeSilent adds that nobody was found slow: beside them, others have shown nothing.
func (r *Report) judgeSilent(p *Phase, heldByKernel int64) {
	if p.SilentClosed > 0 || p.Silent == 0 {
		return
	}
	mib := func(bytes int64) string { return amount(float64(bytes)/(1<<20), "MiB") }
	s := fmt.Sprintf("%s: the server closed none of %d members who never read; about %s were sent to each, and the kernel may hold %s",
		p.Name, p.Silent, mib(p.SilentBytes), mib(heldByKernel))
	if p.SilentBytes < 2*heldByKernel {
		s += ": too little for anybody to be slow, send more (--for, --rate, --size)"
	}
	r.Faults = append(r.Faults, s)
}

// judgeConnections adds what went wrong with connections.
func (r *Report) judgeConnections() {
	c := r.Connections
	r.fault(int64(c.Failed), "%d connections did not come up", c.Failed)
	for _, word := range slices.Sorted(maps.Keys(c.Errors)) {
		r.fault(int64(c.Errors[word]), "the server answered %d times %s", c.Errors[word], word)
	}
	for _, reason := range slices.Sorted(maps.Keys(c.Closes)) {
		r.fault(int64(c.Closes[reason]), "%d connections ended: %s", c.Closes[reason], reason)
	}
}

// FaultError is a run that was not clean.
type FaultError struct{ Faults []string }

func (e *FaultError) Error() string { return strings.Join(e.Faults, "; ") }

func (r *Report) err() error {
	if len(r.Faults) > 0 {
		return &FaultError{r.Faults}
	}
	return nil
}
