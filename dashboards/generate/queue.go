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
				{kind: number, title: "Partitions with an owner", help: "A partition that no task owns is read by nobody. queue.partitions says how many there should be, 16 if nothing else is set.", unit: "short", width: 4, good: []step{{0, bad}, {1, good}},
					queries: []query{{`count(count by (partition) (gochat_queue_partition_owned{@}))`, "owned"}}, none: "none"},
				{kind: number, title: "Oldest in the outbox", help: "Messages wait there while the queue does not take them.", unit: "s", width: 4, good: lowIsGood(2, 30),
					queries: []query{{`max(gochat_outbox_oldest_age_seconds{@})`, "oldest"}}},
				{kind: number, title: "Set aside", help: "Items that could not be handled, in the time shown.", unit: "short", width: 4, good: lowIsGood(1, 1),
					queries: []query{{`sum(increase(gochat_queue_set_aside_total{@}[$__range]))`, "set aside"}}},
				{kind: number, title: "Failures", help: "Operations on queue, database and Redis that failed, a second.", unit: "ops", width: 4, good: lowIsGood(.01, 1),
					queries: []query{{`sum(rate(gochat_queue_errors_total{@}[@])) + (sum(rate(gochat_store_errors_total{@}[@])) or vector(0)) + (sum(rate(gochat_session_store_errors_total{@}[@])) or vector(0))`, "failures"}}},
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
				{kind: lines, title: "Outbox", help: "Messages in it; those left to it and those published from it, a second.", unit: "short", width: 12,
					queries: []query{
						{`sum(gochat_outbox_messages{@})`, "messages"},
						{`sum(rate(gochat_outbox_left_total{@}[@]))`, "left a second"},
						{`sum(rate(gochat_outbox_swept_total{@}[@]))`, "published from it a second"},
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
				{kind: lines, title: "Connections to the database", help: "In use and idle, and how long operations waited for one, in a second.", unit: "short", width: 12,
					queries: []query{
						{`sum(go_sql_in_use_connections{@})`, "in use"},
						{`sum(go_sql_idle_connections{@})`, "idle"},
						{`sum(rate(go_sql_wait_duration_seconds_total{@}[@]))`, "seconds waited"},
					}},
				{kind: lines, title: "Redis", help: "Operations on sessions, routes and presence, p99; and how many failed.", unit: "s", width: 12,
					queries: append(quantiles(`gochat_session_store_seconds_bucket{@}`, "op", "0.99"),
						query{`sum by (op) (rate(gochat_session_store_errors_total{@}[@])) > 0`, "{{op}} failures a second"})},
			}},
			{theRuntime, []panel{
				{kind: lines, title: "CPU of logic and task", help: "Processor time of the processes that accept or consume.", unit: "percentunit", width: 12,
					queries: []query{
						{`rate(process_cpu_seconds_total{@}[@]) and on (instance) gochat_outbox_messages{@}`, "{{instance}} logic"},
						{`rate(process_cpu_seconds_total{@}[@]) and on (instance) gochat_deliveries_pending{@}`, "{{instance}} task"},
					}},
				{kind: lines, title: "Records kept", help: "Age of the oldest record that `gochat where` can answer from.", unit: "s", width: 12,
					queries: []query{{`max by (instance) (gochat_record_oldest_age_seconds{@})`, "{{instance}}"}}},
			}},
		}}
}
