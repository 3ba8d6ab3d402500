package layers

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"gochat/observability"
)

// TestReadinessTellsOfTheFirstTry: a dependency may take its time to fail. What is waited for is said while it does.
func TestReadinessTellsOfTheFirstTry(t *testing.T) {
	health := observability.NewHealth()
	tries := 0
	err := await(t.Context(), "the dependency", health, slog.New(slog.DiscardHandler), func(ctx context.Context) error {
		tries++
		results, ready := health.Check(ctx)
		if ready || len(results) != 1 || results[0].Name != "the dependency" || results[0].Reason == "" {
			t.Errorf("try %d: readiness says %v, %v; want that it waits for the dependency", tries, ready, results)
		}
		if tries == 1 {
			return errors.New("away")
		}
		return nil
	})
	if err != nil || tries != 2 {
		t.Errorf("got %v after %d tries, want nil after 2", err, tries)
	}
	if results, ready := health.Check(t.Context()); !ready {
		t.Errorf("not ready though it has answered: %v", results)
	}
}
