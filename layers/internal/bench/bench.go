package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// Run makes the load that the options ask for, until it is done or ctx ends. It writes a line a second to progress and
// the report to out, also if ctx has ended. It fails with a *UsageError before it has begun, and with a *FaultError if the
// run was not clean, after the report.
func Run(ctx context.Context, o Options, out, progress io.Writer) error {
	if err := o.validate(); err != nil {
		return err
	}
	r, err := run(ctx, o, progress)
	if err != nil {
		return err
	}
	errs := []error{r.err()}
	if err := r.print(out); err != nil {
		errs = append(errs, fmt.Errorf("print report: %w", err))
	}
	if o.JSON != "" {
		errs = append(errs, r.save(o.JSON)) // also if nobody is there to read the other
	}
	return errors.Join(errs...)
}
