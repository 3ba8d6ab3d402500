package main

// fanout shows what rooms cost.
func fanout() board {
	return board{file: "fanout.json", uid: "gochat-fanout", title: "room fan-out",
		help: "What one message becomes: to how many nodes and connections it goes, how long that takes, and which rooms are the hottest.",
		rows: []row{
			{isItWell, []panel{
				{kind: number, title: "Deliveries", help: "Messages for connections.", unit: "mps", width: 6,
					queries: []query{{`sum(rate(gochat_connect_deliveries_total{@}[@]))`, "deliveries"}}},
				{kind: number, title: "First to last write, p99", help: "Of one message on one node, to sockets that took it at once.", unit: "s", width: 6, good: lowIsGood(.05, .25), none: "no message",
					queries: quantiles(`gochat_fanout_seconds_bucket{@}`, "", "0.99")},
				{kind: number, title: "Dropped", help: "Share of deliveries that came to no connection: it was too slow, had gone, or the message was lost.", unit: "percentunit", width: 6, good: lowIsGood(.001, .01), none: "no message",
					queries: []query{{`sum(rate(gochat_connect_deliveries_total{@,outcome=~"slow|gone|lost"}[@])) / (sum(rate(gochat_connect_deliveries_total{@}[@])) > 0)`, "dropped"}}},
				{kind: number, title: "Slow closes", help: "Connections closed in the time shown since too much waited for them.", unit: "short", width: 6, good: lowIsGood(1, 100),
					queries: []query{{`round(sum(increase(gochat_connection_closes_total{@,code="slow_consumer"}[$__range])))`, "closed"}}},
			}},
			{whereOnPath, []panel{
				{kind: lines, title: "Deliveries per message", help: "Connections that one message went to, on all nodes together, on average.", unit: "short", width: 8, none: "no message",
					queries: []query{{`sum(rate(gochat_connect_deliveries_total{@}[@])) / (sum(rate(gochat_messages_consumed_total{@}[@])) > 0)`, "deliveries"}}},
				{kind: lines, title: "Members per message", help: "Connections of one node that one message was for, of messages that had any.", unit: "short", width: 8, none: "no message",
					queries: quantiles(`gochat_fanout_members_bucket{@}`, "", "0.5", "0.9", "0.99")},
				{kind: lines, title: "Nodes per message", help: "Connect nodes that one message is pushed to.", unit: "short", width: 8, none: "no message",
					queries: []query{
						{`sum(rate(gochat_fanout_nodes_sum{@}[@])) / (sum(rate(gochat_fanout_nodes_count{@}[@])) > 0)`, "mean"},
						{`histogram_quantile(0.99, sum by (le) (rate(gochat_fanout_nodes_bucket{@}[@])))`, "p99"},
					}},
				{kind: lines, title: "First to last write", help: "Of one message on one node: how long the last member waited after the first.", unit: "s", width: 12, exemplars: true, none: "no message",
					queries: quantiles(`gochat_fanout_seconds_bucket{@}`, "", "0.5", "0.9", "0.99")},
				{kind: ranking, title: "Hottest rooms", help: "Deliveries a second of the 20 rooms that have most of them, in the last whole ten seconds.", unit: "mps", width: 12, none: "no room is spoken in",
					queries: []query{{`topk(20, sum by (room) (gochat_hot_room_deliveries_per_second{@}))`, "room {{room}}"}}},
				{kind: ranking, title: "Members of the hottest rooms", help: "Connections on all nodes that the last message of each of the hottest rooms went to.", unit: "short", width: 12, none: "no room is spoken in",
					queries: []query{{`topk(20, sum by (room) (gochat_hot_room_members{@}))`, "room {{room}}"}}},
				{kind: ranking, title: "Slowest of the hottest rooms", help: "The longest time from the first to the last write of one message on one node, by room.", unit: "s", width: 12, none: "no room is spoken in",
					queries: []query{{`topk(20, max by (room) (gochat_hot_room_fanout_seconds{@}))`, "room {{room}}"}}},
				{kind: lines, title: "Dropped by reason", help: "slow: too much waited for the connection. gone: it was closing. lost: connect gave up fetching what was missing.", unit: "mps", width: 12,
					queries: []query{{`sum by (outcome) (rate(gochat_connect_deliveries_total{@,outcome=~"slow|gone|lost"}[@]))`, "{{outcome}}"}}},
				{kind: lines, title: "Closed by the server", help: "Connections, by code word.", unit: "cps", width: 12,
					queries: []query{{`sum by (code) (rate(gochat_connection_closes_total{@}[@])) > 0`, "{{code}}"}}, none: "none"},
			}},
			{whichResource, []panel{
				{kind: lines, title: "Bytes per write", help: "What a socket took at once, on average.", unit: "bytes", width: 8, none: "no write",
					queries: []query{{`sum by (instance) (rate(gochat_fanout_bytes_total{@}[@])) / (sum by (instance) (rate(gochat_fanout_writes_total{@}[@])) > 0)`, "{{instance}}"}}},
				{kind: lines, title: "Frames per write", help: "Messages that went by one write, on average: above 1 where rooms are hot.", unit: "short", width: 8, none: "no write",
					queries: []query{{`sum by (instance) (rate(gochat_fanout_frames_total{@}[@])) / (sum by (instance) (rate(gochat_fanout_writes_total{@}[@])) > 0)`, "{{instance}}"}}},
				{kind: lines, title: "Writes", help: "Writes of pushes to sockets.", unit: "wps", width: 8,
					queries: []query{{`sum by (instance) (rate(gochat_fanout_writes_total{@}[@]))`, "{{instance}}"}}},
				{kind: lines, title: "Bytes that wait", help: "For sockets that did not take them at once, over all channels of a node.", unit: "bytes", width: 8,
					queries: []query{{`sum by (instance) (gochat_channel_queue_bytes{@})`, "{{instance}}"}}},
				{kind: lines, title: "Frames per late write", help: "Frames of one write of what waited for a socket.", unit: "short", width: 8, none: "nothing waited",
					queries: quantiles(`gochat_channel_write_frames_bucket{@}`, "", "0.5", "0.99")},
				{kind: lines, title: "Messages per push", help: "What task brings a node by one call: more, the more comes while the last is answered.", unit: "short", width: 8, none: "no push",
					queries: quantiles(`gochat_push_batch_deliveries_bucket{@}`, "", "0.5", "0.99")},
			}},
			{theRuntime, []panel{
				{kind: lines, title: "CPU of connect", help: "Processor time of the processes that hold connections.", unit: "percentunit", width: 12,
					queries: []query{{`rate(process_cpu_seconds_total{@}[@]) and on (job, instance) gochat_draining{@}`, "{{instance}}"}}},
				{kind: lines, title: "Connections", help: "Open client connections, by transport.", unit: "short", width: 12, stacked: true,
					queries: []query{{`sum by (transport) (gochat_connections{@})`, "{{transport}}"}}},
			}},
		}}
}
