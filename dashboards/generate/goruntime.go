package main

// goRuntime shows what the Go runtime does in each process.
func goRuntime() board {
	return board{file: "runtime.json", uid: "gochat-runtime", title: "Go runtime",
		help: "Processor, memory, garbage collection and the scheduler of each process.",
		rows: []row{
			{isItWell, []panel{
				{kind: number, title: "Busiest process", help: "Processor time as a share of the processors that it may use.", unit: "percentunit", width: 6, good: lowIsGood(.6, .85),
					queries: []query{{`max(rate(process_cpu_seconds_total{@}[@]) / go_sched_gomaxprocs_threads{@})`, "CPU"}}},
				{kind: number, title: "Waiting for a processor, p99", help: "How long goroutines that could run waited, in the worst process.", unit: "s", width: 6, good: lowIsGood(.005, .05),
					queries: []query{{`max(histogram_quantile(0.99, sum by (le, instance) (rate(go_sched_latencies_seconds_bucket{@}[@]))))`, "wait"}}},
				{kind: number, title: "Garbage collection", help: "Share of processor time, in the worst process.", unit: "percentunit", width: 6, good: lowIsGood(.1, .25),
					queries: []query{{`max(rate(go_cpu_classes_gc_total_cpu_seconds_total{@}[@]) / (rate(go_cpu_classes_total_cpu_seconds_total{@}[@]) - rate(go_cpu_classes_idle_cpu_seconds_total{@}[@])))`, "share"}}},
				{kind: number, title: "Descriptors", help: "Open files as a share of what a process may open, in the worst process.", unit: "percentunit", width: 6, good: lowIsGood(.7, .85),
					queries: []query{{`max(process_open_fds{@} / process_max_fds{@})`, "open"}}},
			}},
			{whereOnPath, []panel{
				{kind: lines, title: "Waiting for a processor", help: "How long goroutines that could run waited, p99.", unit: "s", width: 12,
					queries: quantiles(`go_sched_latencies_seconds_bucket{@}`, "instance", "0.99")},
				{kind: lines, title: "Stop-the-world pauses, p99", help: "For garbage collection, until all goroutines stood.", unit: "s", width: 12,
					queries: quantiles(`go_sched_pauses_total_gc_seconds_bucket{@}`, "instance", "0.99")},
				{kind: lines, title: "Goroutines", help: "That exist.", unit: "short", width: 12,
					queries: []query{{`go_goroutines{@}`, "{{instance}}"}}},
				{kind: lines, title: "Mutex wait", help: "Seconds that goroutines waited for mutexes, in a second.", unit: "short", width: 12,
					queries: []query{{`rate(go_sync_mutex_wait_total_seconds_total{@}[@])`, "{{instance}}"}}},
			}},
			{whichResource, []panel{
				{kind: lines, title: "Resident memory", help: "Of each process.", unit: "bytes", width: 8,
					queries: []query{{`process_resident_memory_bytes{@}`, "{{instance}}"}}},
				{kind: lines, title: "Live heap", help: "What the last collection found in use.", unit: "bytes", width: 8,
					queries: []query{{`go_gc_heap_live_bytes{@}`, "{{instance}}"}}},
				{kind: lines, title: "Allocation", help: "Bytes allocated on the heap in a second.", unit: "Bps", width: 8,
					queries: []query{{`rate(go_gc_heap_allocs_bytes_total{@}[@])`, "{{instance}}"}}},
				{kind: lines, title: "Collections", help: "Cycles of garbage collection a second.", unit: "ops", width: 8,
					queries: []query{{`rate(go_gc_cycles_total_gc_cycles_total{@}[@])`, "{{instance}}"}}},
				{kind: lines, title: "Open descriptors", help: "Sockets and files of each process.", unit: "short", width: 8,
					queries: []query{{`process_open_fds{@}`, "{{instance}}"}}},
				{kind: lines, title: "Threads", help: "Of the operating system.", unit: "short", width: 8,
					queries: []query{{`go_sched_threads_total_threads{@}`, "{{instance}}"}}},
			}},
			{theRuntime, []panel{
				{kind: lines, title: "Processor time by use", help: "Of all processes together: the program, garbage collection, giving memory back.", unit: "percentunit", width: 12, stacked: true,
					queries: []query{
						{`sum(rate(go_cpu_classes_user_cpu_seconds_total{@}[@]))`, "program"},
						{`sum(rate(go_cpu_classes_gc_total_cpu_seconds_total{@}[@]))`, "garbage collection"},
						{`sum(rate(go_cpu_classes_scavenge_total_cpu_seconds_total{@}[@]))`, "giving memory back"},
					}},
				{kind: lines, title: "Trace spans", help: "Ended, taken by the trace endpoint, and lost. There is none where none is configured.", unit: "ops", width: 12, none: "no trace endpoint",
					queries: []query{
						{`sum(rate(gochat_trace_spans_ended_total{@}[@]))`, "ended"},
						{`sum(rate(gochat_trace_spans_exported_total{@}[@]))`, "exported"},
						{`sum(rate(gochat_trace_spans_failed_total{@}[@]))`, "lost"},
					}},
			}},
		}}
}
