package bench

import (
	"context"
	"fmt"
	"io"
)

// Run makes the load that the options ask for, until it is done or ctx ends. It writes a line a second to progress and
// the report to out. It fails with a *UsageError before it has begun, and with a *FaultError if the run was not clean,
// after the report.
func Run(ctx context.Context, o Options, out, progress io.Writer) error {
	if err := o.validate(); err != nil {
		return err
	}
	r, err := run(ctx, o, progress)
	if err != nil {
		return err
	}
	if err := r.print(out); err != nil {
		return fmt.Errorf("print report: %w", err)
	}
	if o.JSON != "" {
		if err := r.save(o.JSON); err != nil {
			return err
		}
	}
	return r.err()
}
