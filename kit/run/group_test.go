package run_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/kit/run"
)

func TestFirstFailureEndsTheOthers(t *testing.T) {
	g := run.NewGroup(t.Context())
	other := make(chan struct{})
	g.Go("patient", func(ctx context.Context) error { <-ctx.Done(); close(other); return ctx.Err() })
	g.Go("failing", func(context.Context) error { return errors.New("broken") })
	<-g.Failed()
	<-other
	require.EqualError(t, g.Err(), "failing: broken")
	require.EqualError(t, g.Stop(t.Context()), "failing: broken")
}

func TestPanicBecomesAnError(t *testing.T) {
	g := run.NewGroup(t.Context())
	g.Go("clumsy", func(context.Context) error { panic("oops") })
	<-g.Failed()
	require.ErrorContains(t, g.Err(), "clumsy: panic: oops")
}

func TestWorkerThatIsDoneStopsNobody(t *testing.T) {
	g := run.NewGroup(t.Context())
	g.Go("quick", func(context.Context) error { return nil })
	g.Go("patient", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	require.NoError(t, g.Stop(t.Context()))
	require.NoError(t, g.Err())
}

func TestStopGivesUpOnAWorkerThatDoesNotEnd(t *testing.T) {
	g := run.NewGroup(t.Context())
	release := make(chan struct{})
	g.Go("stubborn", func(context.Context) error { <-release; return nil })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	require.ErrorContains(t, g.Stop(ctx), "workers still running")
	close(release)
	require.NoError(t, g.Stop(t.Context()))
}
