package record

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// newAge has the gauge tell what age answers under the lock.
func newAge(metrics prometheus.Registerer, mu *sync.Mutex, age func(now int64) float64) {
	promauto.With(metrics).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "gochat_record_oldest_age_seconds",
		Help: "Age of the oldest record of a message that is kept, 0 if there is none: below record.keep in a process that has lived longer, record.messages is what bounds it.",
	}, func() float64 {
		mu.Lock()
		defer mu.Unlock()
		return age(time.Now().UnixMicro())
	})
}
