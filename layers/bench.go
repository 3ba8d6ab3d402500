package layers

import (
	"context"
	"io"

	"gochat/layers/internal/bench"
)

type (
	// BenchOptions say what load Bench makes, and where.
	BenchOptions = bench.Options
	// BenchProcess is a process whose use of CPU and memory Bench reports.
	BenchProcess = bench.Process
	// BenchUsageError is a mistake in BenchOptions.
	BenchUsageError = bench.UsageError
)

// BenchScenarios lists what may be BenchOptions.Scenario.
func BenchScenarios() []string { return bench.Scenarios() }

// BenchDefaults are the options of a Bench that is not told otherwise; there is no scenario and no password among them.
func BenchDefaults() BenchOptions { return bench.Defaults() }

// Bench makes load for a running gochat until it is done or ctx ends, writes a line a second to progress and what it has
// measured to out. It fails with a *BenchUsageError before it has begun, and with any other error if something could
// not be done, was lost or went wrong.
func Bench(ctx context.Context, o BenchOptions, out, progress io.Writer) error {
	return bench.Run(ctx, o, out, progress)
}

// BenchCompare prints the reports that two runs have left as JSON, with ratios.
func BenchCompare(pathA, pathB string, out io.Writer) error { return bench.Compare(pathA, pathB, out) }

// BenchReference is the write loop that Bench starts in a process of its own. It returns when in ends.
func BenchReference(ctx context.Context, transport string, in io.Reader, out io.Writer) error {
	return bench.ServeReference(ctx, transport, in, out)
}
