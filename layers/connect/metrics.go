package connect

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"gochat/layers/connect/wire"
	"gochat/layers/internal/contract"
	"gochat/observability"
)

type metrics struct {
	connections [deflated + 1]prometheus.Gauge // by transport
	limit       prometheus.Gauge
	turnedAway  prometheus.Counter
	compressed  prometheus.Counter
	ops         map[wire.Op]opMetrics // of those that clients send
	invalid     prometheus.Counter    // frames that are none of these
	errors      *prometheus.CounterVec
	closes      *prometheus.CounterVec
	deliveries  [outcomes]prometheus.Counter // by outcome
	queueBytes  prometheus.Gauge
	writeFrames prometheus.Histogram
	seconds     prometheus.Histogram
	stage       prometheus.Histogram
	fanOut      fanOutMetrics
	hot         *hotRooms
	registered  prometheus.Counter
	draining    prometheus.Gauge
	drained     prometheus.Gauge
	waiting     prometheus.Gauge
	forced      prometheus.Counter
	replayed    prometheus.Counter

	repairs, repaired, repairFailures, abandoned, putOff prometheus.Counter

	buckets []bucketMetrics
}

// bucketMetrics are the children of one bucket.
type bucketMetrics struct {
	lock            observability.LockMetrics
	channels, rooms prometheus.Gauge
	deliveries      [outcomes]prometheus.Counter // of all buckets, as fanOut
	fanOut          fanOutMetrics
}

func (m *bucketMetrics) count(sum *[outcomes]int) {
	for o, n := range sum {
		if n > 0 {
			m.deliveries[o].Add(float64(n))
		}
	}
}

// opMetrics are the children of the frames with one op.
type opMetrics struct {
	frames  prometheus.Counter
	seconds prometheus.Observer
}

func newMetrics(reg prometheus.Registerer, buckets int) *metrics {
	with := promauto.With(reg)
	vec := func(name, help, label string) *prometheus.CounterVec {
		return with.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
	}
	connections := with.NewGaugeVec(prometheus.GaugeOpts{
		Name: "gochat_connections", Help: "Open client connections, by transport."}, []string{"transport"})
	m := &metrics{
		limit: with.NewGauge(prometheus.GaugeOpts{
			Name: "gochat_connections_limit", Help: "Client connections that this node takes at most."}),
		turnedAway: with.NewCounter(prometheus.CounterOpts{
			Name: "gochat_connections_turned_away_total", Help: "Connections refused since the node was full or going away."}),
		compressed: with.NewCounter(prometheus.CounterOpts{
			Name: "gochat_frames_compressed_total", Help: "Frames that were compressed, once for all connections of this node."}),
		errors: vec("gochat_frames_refused_total", "Client frames answered with an error, by code word.", "code"),
		closes: vec("gochat_connection_closes_total", "Connections closed by the server, by code word.", "code"),
		queueBytes: with.NewGauge(prometheus.GaugeOpts{
			Name: "gochat_channel_queue_bytes", Help: "Bytes that wait for sockets, over all channels."}),
		writeFrames: with.NewHistogram(prometheus.HistogramOpts{
			Name: "gochat_channel_write_frames", Help: "Frames of one write of what waited for a socket.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 12)}),
		seconds: with.NewHistogram(observability.LatencyOpts("gochat_message_end_to_end_seconds",
			"From acceptance to the last write of a message on this node to sockets that took it at once.")),
		stage:  observability.NewStage(reg, observability.StageWrite),
		fanOut: newFanOutMetrics(with),
		hot:    newHotRooms(),
		registered: with.NewCounter(prometheus.CounterOpts{
			Name: "gochat_routes_registered_again_total", Help: "Times this node wrote all of its routes anew."}),
		draining: with.NewGauge(prometheus.GaugeOpts{
			Name: "gochat_draining", Help: "1 once the node sends its connections away, which gochat_connections counts down."}),
		drained: with.NewGauge(prometheus.GaugeOpts{
			Name: "gochat_drain_end_timestamp_seconds", Help: "When the node is to have sent the last of its connections away; 0 while it sends none."}),
		waiting: with.NewGauge(prometheus.GaugeOpts{
			Name: "gochat_drain_waiting_connections", Help: "Connections that are still to be told to go."}),
		forced: with.NewCounter(prometheus.CounterOpts{
			Name: "gochat_connections_forced_total", Help: "Connections that were ended and whose client did not take the last frames, or close its side, in time."}),
		replayed: with.NewCounter(prometheus.CounterOpts{
			Name: "gochat_messages_replayed_total", Help: "Messages sent again to connections that resumed."}),
	}
	frames := vec("gochat_frames_in_total", "Client frames read, by op.", "op")
	frameSeconds := with.NewHistogramVec(observability.LatencyOpts("gochat_frame_seconds",
		"From a client frame's coming to its being acted on, by op."), []string{"op"})
	m.invalid, m.ops = frames.WithLabelValues("invalid"), make(map[wire.Op]opMetrics)
	for _, op := range []wire.Op{wire.OpAuth, wire.OpDirect, wire.OpRoom, wire.OpPing, wire.OpPong, wire.OpReplay, wire.OpRead, wire.OpTyping,
		wire.OpEnter, wire.OpLeave} {
		label := strconv.Itoa(int(op))
		m.ops[op] = opMetrics{frames.WithLabelValues(label), frameSeconds.WithLabelValues(label)}
	}
	m.repairs = with.NewCounter(prometheus.CounterOpts{
		Name: "gochat_repairs_total", Help: "Conversations of which this node had missed a push and fetched what was missing."})
	m.repaired = with.NewCounter(prometheus.CounterOpts{
		Name: "gochat_messages_repaired_total", Help: "Messages fetched and pushed by repairs."})
	m.repairFailures = with.NewCounter(prometheus.CounterOpts{
		Name: "gochat_repair_failures_total", Help: "Times that missed messages could not be fetched."})
	m.abandoned = with.NewCounter(prometheus.CounterOpts{
		Name: "gochat_repairs_abandoned_total", Help: "Repairs given up, since what was missed cannot be had."})
	m.putOff = with.NewCounter(prometheus.CounterOpts{
		Name: "gochat_repairs_put_off_total", Help: "Comparisons that left a conversation that is behind to the queue, which is behind as well."})
	deliveries := vec("gochat_connect_deliveries_total", "Messages for connections, each once however often it is pushed or repaired, by what became of them.", "outcome")
	for o := range m.deliveries {
		m.deliveries[o] = deliveries.WithLabelValues(outcome(o).String())
	}
	reg.MustRegister(m.hot)
	m.buckets = newBucketMetrics(with, buckets)
	for b := range m.buckets {
		m.buckets[b].deliveries, m.buckets[b].fanOut = m.deliveries, m.fanOut
	}
	for _, code := range contract.Codes() { // series from the start, so that the first is an increase
		m.errors.WithLabelValues(string(code))
		m.closes.WithLabelValues(string(code))
	}
	for t := range m.connections {
		m.connections[t] = connections.WithLabelValues(transport(t).String())
	}
	return m
}

func newBucketMetrics(with promauto.Factory, buckets int) []bucketMetrics {
	labels := []string{"bucket"}
	counter := func(name, help string) *prometheus.CounterVec {
		return with.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	gauge := func(name, help string) *prometheus.GaugeVec {
		return with.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	}
	seconds := func(name, help string) *prometheus.HistogramVec {
		return with.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help,
			Buckets: []float64{1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, .1, 1}, NativeHistogramBucketFactor: 1.1}, labels)
	}
	acquisitions := counter("gochat_bucket_lock_acquisitions_total", "Times a bucket's lock was taken.")
	contended := counter("gochat_bucket_lock_contended_total", "Times a bucket's lock had to be waited for.")
	wait := seconds("gochat_bucket_lock_wait_seconds", "How long those who had to wait for a bucket's lock waited.")
	hold := seconds("gochat_bucket_lock_hold_seconds", "How long a bucket's lock was held, one time in 64.")
	channels := gauge("gochat_bucket_channels", "Authenticated connections of a bucket.")
	rooms := gauge("gochat_bucket_rooms", "Rooms with a member in a bucket.")

	all := make([]bucketMetrics, buckets)
	for i := range all {
		label := strconv.Itoa(i)
		all[i] = bucketMetrics{
			lock: observability.LockMetrics{
				Acquisitions: acquisitions.WithLabelValues(label), Contended: contended.WithLabelValues(label),
				Wait: wait.WithLabelValues(label), Hold: hold.WithLabelValues(label),
			},
			channels: channels.WithLabelValues(label), rooms: rooms.WithLabelValues(label),
		}
	}
	return all
}

// fanOutMetrics say how pushes go out. Writes, frames and bytes are of what sockets took at once: their ratios say how many
// messages go by one write, and how much that is.
type fanOutMetrics struct {
	members, seconds      prometheus.Histogram
	writes, frames, bytes prometheus.Counter
}

func newFanOutMetrics(with promauto.Factory) fanOutMetrics {
	counter := func(name, help string) prometheus.Counter {
		return with.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	return fanOutMetrics{
		members: with.NewHistogram(prometheus.HistogramOpts{
			Name: "gochat_fanout_members", Help: "Connections of this node that one message was for, of those that had any.",
			Buckets: []float64{0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000}}),
		seconds: with.NewHistogram(observability.LatencyOpts("gochat_fanout_seconds",
			"From the first to the last write of one message on this node, to sockets that took it at once.")),
		writes: counter("gochat_fanout_writes_total", "Writes of pushes to sockets that took something."),
		frames: counter("gochat_fanout_frames_total", "Frames that these writes carried."),
		bytes:  counter("gochat_fanout_bytes_total", "Bytes that these writes carried."),
	}
}
