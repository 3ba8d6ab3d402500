package main

// queue shows what waits between logic and task, and the database.
func queue() board {
	return board{file: "queue.json", uid: "gochat-queue", title: "queue and store",
		help: "What waits in the queue and for how long, who reads it, and what commits and the database cost.",
		rows: []row{
			{isItWell, []panel{
				{kind: number, title: "Oldest in the queue", help: "How long the oldest item of any partition has waited.", unit: "s", width: 4, good: lowIsGood(1, 10),
					queries: []query{{`max(gochat_queue_oldest_age_seconds{@})`, "oldest"}}},
				{kind: number, title: "Waiting", help: "Items of all partitions that are not acknowledged.", unit: "short", width: 4, good: lowIsGood(1000, 10000),
					queries: []query{{`sum(gochat_queue_depth{@})`, "items"}}},
				{kind: number, title: "Partitions without an owner", help: "What is in them is read by nobody.", unit: "short", width: 4, good: lowIsGood(1, 1),
					queries: []query{{`max(gochat_queue_partitions{@}) - (count(count by (partition) (gochat_queue_partition_owned{@})) or vector(0))`, "without"}}},
				{kind: number, title: "Oldest in the outbox", help: "Messages wait there while the queue does not take them.", unit: "s", width: 4, good: lowIsGood(2, 30),
					queries: []query{{`max(gochat_outbox_oldest_age_seconds{@})`, "oldest"}}},
				{kind: number, title: "Set aside", help: "Items that could not be handled, in the time shown.", unit: "short", width: 4, good: lowIsGood(1, 1),
					queries: []query{{`round(sum(increase(gochat_queue_set_aside_total{@}[$__range])))`, "set aside"}}},
				{kind: number, title: "Failures", help: "Operations on queue, database and Redis that failed, a second.", unit: "ops", width: 4, good: lowIsGood(.01, 1),
					queries: []query{{`sum(rate(gochat_queue_errors_total{@}[@]) or rate(gochat_store_errors_total{@}[@]) or rate(gochat_session_store_errors_total{@}[@]))`, "failures"}}},
			}},
			{whereOnPath, []panel{
				{kind: lines, title: "Waiting by partition", help: "Items that are not acknowledged.", unit: "short", width: 12, stacked: true,
					queries: []query{{`max by (partition) (gochat_queue_depth{@})`, "{{partition}}"}}},
				{kind: lines, title: "Oldest by partition", help: "How long the oldest item has waited.", unit: "s", width: 12,
					queries: []query{{`max by (partition) (gochat_queue_oldest_age_seconds{@})`, "{{partition}}"}}},
				{kind: lines, title: "Published and consumed", help: "Items that the queue accepted, that were handled, and that were handed over again.", unit: "ops", width: 12,
					queries: []query{
						{`sum(rate(gochat_queue_published_total{@}[@]))`, "published"},
						{`sum(rate(gochat_queue_consumed_total{@}[@]))`, "consumed"},
						{`sum(rate(gochat_queue_redelivered_total{@}[@]))`, "again"},
					}},
				{kind: lines, title: "Owners", help: "Partitions that each task reads.", unit: "short", width: 12, stacked: true,
					queries: []query{{`count by (instance) (gochat_queue_partition_owned{@})`, "{{instance}}"}}},
				{kind: lines, title: "Outbox", help: "Messages in it.", unit: "short", width: 6, none: "nobody sweeps it",
					queries: []query{{`sum(gochat_outbox_messages{@})`, "messages"}}},
				{kind: lines, title: "To and from the outbox", help: "Messages left to it since the queue did not take them, and published from it.", unit: "mps", width: 6,
					queries: []query{
						{`sum(rate(gochat_outbox_left_total{@}[@]))`, "left"},
						{`sum(rate(gochat_outbox_swept_total{@}[@]))`, "published"},
					}},
				{kind: lines, title: "Queue failures", help: "By what was attempted.", unit: "ops", width: 12, none: "none",
					queries: []query{{`sum by (op) (rate(gochat_queue_errors_total{@}[@])) > 0`, "{{op}}"}}},
			}},
			{whichResource, []panel{
				{kind: lines, title: "Messages per commit", help: "The more come, the more go into one transaction.", unit: "short", width: 8, none: "no commit",
					queries: quantiles(`gochat_commit_batch_messages_bucket{@}`, "", "0.5", "0.99")},
				{kind: lines, title: "Commit", help: "Duration of one commit, and how long a message waits for its own to be done.", unit: "s", width: 8, exemplars: true, none: "no commit",
					queries: []query{
						{`histogram_quantile(0.99, sum by (le) (rate(gochat_commit_seconds_bucket{@}[@])))`, "commit p99"},
						{`histogram_quantile(0.99, sum by (le) (rate(gochat_message_stage_seconds_bucket{@,stage="commit"}[@])))`, "message p99"},
					}},
				{kind: lines, title: "Uncertain commits, retries", help: "Commits whose answer got lost, and transactions tried again.", unit: "ops", width: 8,
					queries: []query{
						{`sum(rate(gochat_store_uncertain_commits_total{@}[@]))`, "uncertain"},
						{`sum(rate(gochat_store_retries_total{@}[@]))`, "tried again"},
					}},
				{kind: lines, title: "Store, p99", help: "By operation, waiting for a connection included: the ten slowest.", unit: "s", width: 12, exemplars: true, none: "no operation",
					queries: []query{{`topk(10, histogram_quantile(0.99, sum by (le, operation) (rate(gochat_store_seconds_bucket{@}[@]))))`, "{{operation}}"}}},
				{kind: lines, title: "Store failures", help: "By operation; an answer such as not found is none.", unit: "ops", width: 12, none: "none",
					queries: []query{{`sum by (operation) (rate(gochat_store_errors_total{@}[@])) > 0`, "{{operation}}"}}},
				{kind: lines, title: "Connections to the database", help: "In use and idle.", unit: "short", width: 6,
					queries: []query{
						{`sum(go_sql_in_use_connections{@})`, "in use"},
						{`sum(go_sql_idle_connections{@})`, "idle"},
					}},
				{kind: lines, title: "Waiting for the database", help: "Seconds that operations waited for a connection, in a second.", unit: "short", width: 6,
					queries: []query{{`sum by (instance) (rate(go_sql_wait_duration_seconds_total{@}[@]))`, "{{instance}}"}}},
				{kind: lines, title: "Redis, p99", help: "Operations on sessions, routes and presence.", unit: "s", width: 6,
					queries: quantiles(`gochat_session_store_seconds_bucket{@}`, "op", "0.99")},
				{kind: lines, title: "Redis failures", help: "Operations that failed for want of Redis or of time.", unit: "ops", width: 6, none: "none",
					queries: []query{{`sum by (op) (rate(gochat_session_store_errors_total{@}[@])) > 0`, "{{op}}"}}},
			}},
			{theRuntime, []panel{
				{kind: lines, title: "CPU of logic and task", help: "Processor time of the processes that accept or consume.", unit: "percentunit", width: 12,
					queries: []query{
						{`rate(process_cpu_seconds_total{@}[@]) and on (job, instance) gochat_queue_partitions{@,layer="logic"}`, "{{instance}} logic"},
						{`rate(process_cpu_seconds_total{@}[@]) and on (job, instance) gochat_deliveries_pending{@}`, "{{instance}} task"},
					}},
				{kind: lines, title: "Records kept", help: "Age of the oldest record that `gochat where` can answer from.", unit: "s", width: 12,
					queries: []query{{`max by (instance) (gochat_record_oldest_age_seconds{@})`, "{{instance}}"}}},
			}},
		}}
}
