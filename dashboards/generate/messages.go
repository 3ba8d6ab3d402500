package main

// messages is the first that is opened: whether messages come, how soon, and where they are held up.
func messages() board {
	stage := func(name, help string) panel {
		return panel{kind: lines, title: "Stage: " + name, help: help, unit: "s", width: 6, exemplars: true,
			queries: quantiles(`gochat_message_stage_seconds_bucket{@,stage="`+name+`"}`, "", "0.5", "0.99")}
	}
	return board{file: "messages.json", uid: "gochat-messages", title: "message path",
		help: "Whether messages come, how soon, and at which stage of their way they are held up.",
		rows: []row{
			{isItWell, []panel{
				{kind: number, title: "Accepted", help: "Messages stored and acknowledged.", unit: "mps", width: 4,
					queries: []query{{`sum(rate(gochat_messages_accepted_total{@}[@]))`, "accepted"}}},
				{kind: number, title: "Written within 250 ms", help: "Share of messages written to the last socket of a node within 250 ms of acceptance; the aim is 99 %.",
					unit: "percentunit", width: 4, good: highIsGood(.97, .99), none: "no message",
					queries: []query{{`sum(rate(gochat_message_end_to_end_seconds_bucket{@,le="0.25"}[@])) / (sum(rate(gochat_message_end_to_end_seconds_count{@}[@])) > 0)`, "in time"}}},
				{kind: number, title: "End to end, p99", help: "From acceptance to the last write on a node.", unit: "s", width: 4, good: lowIsGood(.1, .25), none: "no message",
					queries: quantiles(`gochat_message_end_to_end_seconds_bucket{@}`, "", "0.99")},
				{kind: number, title: "Lost or given up", help: "Messages that connect or task gave up in the time shown: the ledger's only bad ends.", unit: "short", width: 4, good: lowIsGood(1, 10),
					queries: []query{{`round(sum(increase(gochat_connect_deliveries_total{@,outcome="lost"}[$__range]) or increase(gochat_deliveries_total{@,outcome="error"}[$__range])))`, "lost"}}},
				{kind: number, title: "Ledger's difference", help: "Share of the messages accepted in the time shown that were neither consumed nor wait now. Of all processes together: choose all. Below 0 where some were handed over again, or what had waited before was worked off.",
					unit: "percentunit", width: 4, good: lowIsGood(.001, .01), none: "no message",
					queries: []query{{`(sum(increase(gochat_messages_accepted_total{@}[$__range])) - (sum(increase(gochat_messages_consumed_total{@}[$__range])) or vector(0)) - (sum(gochat_queue_depth{@}) or vector(0)) - (sum(gochat_outbox_messages{@}) or vector(0))) / (sum(increase(gochat_messages_accepted_total{@}[$__range])) > 0)`, "difference"}}},
				{kind: number, title: "Canary", help: "Whether what each connect node writes to itself comes, by each transport: the worst of all.", unit: "short", width: 4, good: []step{{0, bad}, {1, good}},
					words: map[string]string{"0": "failing", "1": "well"}, none: "none",
					queries: []query{{`min(gochat_canary_up{@})`, "canary"}}},
			}},
			{whereOnPath, []panel{
				{kind: lines, title: "End to end", help: "From acceptance to the last write of a message on a node.", unit: "s", width: 12, exemplars: true,
					queries: quantiles(`gochat_message_end_to_end_seconds_bucket{@}`, "", "0.5", "0.9", "0.99")},
				{kind: lines, title: "Messages", help: "Accepted by logic, handed to the queue, taken from it by task. They go together; where one is below the one before, messages gather there.",
					unit: "mps", width: 12,
					queries: []query{
						{`sum(rate(gochat_messages_accepted_total{@}[@]))`, "accepted"},
						{`sum(rate(gochat_messages_published_total{@}[@]))`, "published"},
						{`sum(rate(gochat_messages_consumed_total{@}[@]))`, "consumed"},
					}},
				stage("commit", "Accepted until stored: waiting for a batch, and its commit."),
				stage("queue", "Stored until task has taken it: publishing, and the queue."),
				stage("dispatch", "Until task pushes it: routes are looked up, pushes gather."),
				stage("push", "Until the connect node has answered the push."),
				stage("write", "Within the push: until the node has given it to the last socket."),
				{kind: lines, title: "Deliveries", help: "What became of messages, for each connection they were due to: written at once or queued, dropped as slow, gone or lost, or nobody was there.",
					unit: "mps", width: 9,
					queries: []query{
						{`sum by (outcome) (rate(gochat_connect_deliveries_total{@}[@]))`, "{{outcome}}"},
						{`sum by (outcome) (rate(gochat_deliveries_total{@,outcome=~"offline|error"}[@]))`, "{{outcome}}"},
					}},
				{kind: lines, title: "Under way", help: "Messages that wait: in the outbox, in the queue, in task.", unit: "short", width: 9,
					queries: []query{
						{`sum(gochat_outbox_messages{@})`, "outbox"},
						{`sum(gochat_queue_depth{@})`, "queue"},
						{`sum(gochat_deliveries_pending{@})`, "task"},
					}},
				{kind: lines, title: "Refused", help: "Sends that were not accepted, by code word, and frames answered with an error.", unit: "mps", width: 12,
					queries: []query{
						{`sum by (code) (rate(gochat_messages_refused_total{@}[@])) > 0`, "send: {{code}}"},
						{`sum by (code) (rate(gochat_frames_refused_total{@}[@])) > 0`, "frame: {{code}}"},
					}, none: "none"},
				{kind: lines, title: "Canary, p99", help: "How long the canary's messages took, by transport.", unit: "s", width: 12, exemplars: true,
					queries: quantiles(`gochat_canary_seconds_bucket{@}`, "transport", "0.99")},
			}},
			{whichResource, []panel{
				{kind: lines, title: "Repairs", help: "Messages that connect nodes had missed and fetched, conversations given up, and resumes: 0 while all is well, but for the last.", unit: "mps", width: 8,
					queries: []query{
						{`sum(rate(gochat_messages_repaired_total{@}[@]))`, "repaired"},
						{`sum(rate(gochat_repairs_abandoned_total{@}[@]))`, "conversations given up"},
						{`sum(rate(gochat_messages_replayed_total{@}[@]))`, "replayed to who resumed"},
					}},
				{kind: lines, title: "Database, p99", help: "Operations of the store, the five slowest.", unit: "s", width: 8, exemplars: true,
					queries: []query{{`topk(5, histogram_quantile(0.99, sum by (le, operation) (rate(gochat_store_seconds_bucket{@}[@]))))`, "{{operation}}"}}},
				{kind: lines, title: "Redis, p99", help: "Operations on sessions, routes and presence.", unit: "s", width: 8,
					queries: quantiles(`gochat_session_store_seconds_bucket{@}`, "op", "0.99")},
			}},
			{theRuntime, []panel{
				{kind: lines, title: "CPU", help: "Processor time of each process.", unit: "percentunit", width: 12,
					queries: []query{{`rate(process_cpu_seconds_total{@}[@])`, "{{instance}}"}}},
				{kind: lines, title: "Waiting for a processor, p99", help: "How long goroutines that could run waited. Where it is as long as a stage, the machine is too small.", unit: "s", width: 12,
					queries: quantiles(`go_sched_latencies_seconds_bucket{@}`, "instance", "0.99")},
			}},
		}}
}
