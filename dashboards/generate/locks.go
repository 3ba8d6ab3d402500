package main

// locks shows how connect's buckets share their work, and who waits for whom.
func locks() board {
	const ratio = `(sum by (instance, bucket) (rate(gochat_bucket_lock_contended_total{@}[@])) / (sum by (instance, bucket) (rate(gochat_bucket_lock_acquisitions_total{@}[@])) > 0))`
	return board{file: "locks.json", uid: "gochat-locks", title: "bucket lock contention",
		help: "How evenly connections lie in connect's buckets, and how long work waits for their locks.",
		rows: []row{
			{isItWell, []panel{
				{kind: number, title: "Contended", help: "Share of lock acquisitions that had to wait, over all buckets.", unit: "percentunit", width: 6, good: lowIsGood(.02, .1), none: "no lock taken",
					queries: []query{{`sum(rate(gochat_bucket_lock_contended_total{@}[@])) / (sum(rate(gochat_bucket_lock_acquisitions_total{@}[@])) > 0)`, "contended"}}},
				{kind: number, title: "Wait, p99", help: "How long those who had to wait for a bucket's lock waited.", unit: "s", width: 6, good: lowIsGood(.001, .01), none: "nobody waited",
					queries: quantiles(`gochat_bucket_lock_wait_seconds_bucket{@}`, "", "0.99")},
				{kind: number, title: "Skew", help: "Connections of the fullest bucket over the mean of its node; the worst node. Users are hashed to buckets, so it is of nodes with 50 in a bucket and more.", unit: "short", width: 6, good: lowIsGood(1.5, 2), none: "few connections",
					queries: []query{{`max(max by (instance) (gochat_bucket_channels{@}) / (avg by (instance) (gochat_bucket_channels{@}) >= 50))`, "skew"}}},
				{kind: number, title: "Of all mutex wait", help: "Waiting for buckets' locks as a share of what the process's goroutines wait for any mutex; the runtime's number is an estimate.", unit: "percentunit", width: 6, good: lowIsGood(.3, .6), none: "nobody waited",
					queries: []query{{`sum(rate(gochat_bucket_lock_wait_seconds_sum{@}[@])) / (sum(rate(go_sync_mutex_wait_total_seconds_total{@}[@]) and on (job, instance) gochat_draining{@}) > 0)`, "share"}}},
			}},
			{whereOnPath, []panel{
				{kind: lines, title: "Contended ratio by bucket", help: "Share of each bucket's lock acquisitions that had to wait: the ten highest.", unit: "percentunit", width: 12,
					queries: []query{{`topk(10, ` + ratio + `)`, "{{instance}} {{bucket}}"}}},
				{kind: lines, title: "Wait by bucket, p99", help: "How long those who had to wait waited: the ten highest.", unit: "s", width: 12, none: "nobody waited",
					queries: []query{{`topk(10, histogram_quantile(0.99, sum by (le, instance, bucket) (rate(gochat_bucket_lock_wait_seconds_bucket{@}[@]))))`, "{{instance}} {{bucket}}"}}},
				{kind: heat, title: "Waits", help: "How many waits a second were how long, all buckets together.", unit: "s", width: 12,
					queries: []query{{`sum by (le) (rate(gochat_bucket_lock_wait_seconds_bucket{@}[@]))`, "{{le}}"}}},
				{kind: lines, title: "Time waited", help: "Seconds of waiting in a second, by node: 1 is one goroutine that always waits.", unit: "short", width: 12,
					queries: []query{{`sum by (instance) (rate(gochat_bucket_lock_wait_seconds_sum{@}[@]))`, "{{instance}}"}}},
			}},
			{whichResource, []panel{
				{kind: lines, title: "Connections by bucket", help: "Authenticated connections: the fullest bucket, the mean and the emptiest of each node.", unit: "short", width: 8,
					queries: []query{
						{`max by (instance) (gochat_bucket_channels{@})`, "{{instance}} fullest"},
						{`avg by (instance) (gochat_bucket_channels{@})`, "{{instance}} mean"},
						{`min by (instance) (gochat_bucket_channels{@})`, "{{instance}} emptiest"},
					}},
				{kind: lines, title: "Rooms by bucket", help: "Rooms with a member in the bucket: the most and the mean of each node.", unit: "short", width: 8,
					queries: []query{
						{`max by (instance) (gochat_bucket_rooms{@})`, "{{instance}} most"},
						{`avg by (instance) (gochat_bucket_rooms{@})`, "{{instance}} mean"},
					}},
				{kind: lines, title: "Lock taken", help: "Times a second that a node's buckets' locks were taken.", unit: "ops", width: 8,
					queries: []query{{`sum by (instance) (rate(gochat_bucket_lock_acquisitions_total{@}[@]))`, "{{instance}}"}}},
				{kind: lines, title: "Held, p99", help: "How long a lock was held, one time in 64: the ten longest. No lock is held while a socket is written.", unit: "s", width: 24,
					queries: []query{{`topk(10, histogram_quantile(0.99, sum by (le, instance, bucket) (rate(gochat_bucket_lock_hold_seconds_bucket{@}[@]))))`, "{{instance}} {{bucket}}"}}},
			}},
			{theRuntime, []panel{
				{kind: lines, title: "Mutex wait of the process", help: "Seconds that goroutines waited for any mutex, in a second.", unit: "short", width: 12,
					queries: []query{{`rate(go_sync_mutex_wait_total_seconds_total{@}[@])`, "{{instance}}"}}},
				{kind: lines, title: "Waiting for a processor, p99", help: "How long goroutines that could run waited: who holds a lock and does not run makes the others wait.", unit: "s", width: 12,
					queries: quantiles(`go_sched_latencies_seconds_bucket{@}`, "instance", "0.99")},
			}},
		}}
}
