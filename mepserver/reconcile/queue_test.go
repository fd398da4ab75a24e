package reconcile

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/state"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func newTestQueue(workers int) *queue {
	return newQueue(workers, newGate(time.Second, time.Minute), func(int, int) {})
}

func takeOne(t *testing.T, q *queue, now time.Time) *entry {
	t.Helper()
	e, _, wait := q.take(now)
	require.NotNil(t, e, "nothing to do for %s", wait)
	return e
}

func TestAnAppIsQueuedOnceAndServedByOneWorker(t *testing.T) {
	q := newTestQueue(2)
	for range 3 {
		q.mark("a")
	}
	a := takeOne(t, q, noon)
	q.mark("a")
	e, _, wait := q.take(noon)
	require.Nil(t, e, "a worker has it")
	require.Equal(t, idle, wait)
	q.finish(a, time.Time{}, true)
	again := takeOne(t, q, noon)
	require.Same(t, a, again, "it changed while the worker had it, so it is not forgotten")
	q.finish(again, time.Time{}, true)
	require.Empty(t, q.entries)
	require.Zero(t, q.pending)
}

func TestNoMoreWorkersThanThereAre(t *testing.T) {
	q := newTestQueue(2)
	q.markAll([]string{"a", "b", "c"})
	a := takeOne(t, q, noon)
	takeOne(t, q, noon)
	e, _, _ := q.take(noon)
	require.Nil(t, e)
	q.finish(a, time.Time{}, false)
	require.Equal(t, "c", takeOne(t, q, noon).app)
}

func TestDelayedAppsComeInTheirOrder(t *testing.T) {
	q := newTestQueue(8)
	delays := map[string]time.Duration{"a": 30 * time.Second, "b": 10 * time.Second, "c": 20 * time.Second}
	for app, d := range delays {
		q.mark(app)
		q.finish(takeOne(t, q, noon), noon.Add(d), false)
	}
	e, _, wait := q.take(noon)
	require.Nil(t, e)
	require.Equal(t, 10*time.Second, wait)
	require.Equal(t, "b", takeOne(t, q, noon.Add(10*time.Second)).app)
	q.mark("a")
	require.Equal(t, "a", takeOne(t, q, noon.Add(11*time.Second)).app, "a change does not wait")
	_, _, wait = q.take(noon.Add(11 * time.Second))
	require.Equal(t, 9*time.Second, wait)
	require.Equal(t, "c", takeOne(t, q, noon.Add(time.Hour)).app)
	require.Empty(t, q.delayed)
}

func TestAResyncForcesWhatAWorkerHas(t *testing.T) {
	q := newTestQueue(1)
	q.mark("a")
	a, force, _ := q.take(noon)
	require.False(t, force)
	q.markAll(nil)
	q.finish(a, noon.Add(time.Hour), false)
	_, force, _ = q.take(noon)
	require.True(t, force)
}

func TestParkedAppsAreTriedOneAtATime(t *testing.T) {
	q := newTestQueue(4)
	q.markAll([]string{"a", "b", "c"})
	for range several {
		require.True(t, q.gate.open())
		e := takeOne(t, q, noon)
		q.update(e, func() { e.failures++ })
		closed := q.gate.failed(e.app, false, noon, 0)
		require.Equal(t, e.app == "c", closed)
		q.finish(e, noon.Add(10*time.Minute), false)
	}
	q.mark("new")
	e := takeOne(t, q, noon)
	ok, _ := q.gate.admit(noon)
	require.False(t, ok)
	q.park(e)
	e, _, wait := q.take(noon)
	require.Nil(t, e)
	require.LessOrEqual(t, wait, time.Second, "the gate's wait")
	require.Equal(t, 4, q.pending)

	probe := takeOne(t, q, noon.Add(time.Second))
	require.Equal(t, "new", probe.app)
	ok, only := q.gate.admit(noon.Add(time.Second))
	require.True(t, ok)
	require.True(t, only)
	ok, _ = q.gate.admit(noon.Add(time.Hour))
	require.False(t, ok, "the other side is asked by one at a time")
	q.update(probe, func() { probe.achieved = &state.Status{} })
	require.True(t, q.gate.answered())
	q.release()
	q.finish(probe, time.Time{}, false)
	for range several {
		e, force, _ := q.take(noon.Add(time.Second))
		require.NotNil(t, e, "all go on, however long they were to wait")
		require.True(t, force)
	}
	require.Equal(t, 3, q.pending)
}

func TestAnAppIsNotParkedAtAGateThatHasOpened(t *testing.T) {
	q := newTestQueue(1)
	q.gate.failed("other", false, noon, time.Second)
	q.mark("a")
	e := takeOne(t, q, noon)
	ok, _ := q.gate.admit(noon)
	require.False(t, ok)
	q.gate.answered()
	q.release() // before the app is parked
	q.park(e)
	require.Same(t, e, takeOne(t, q, noon))
}

func TestTheGate(t *testing.T) {
	t.Run("one app that fails does not close it", func(t *testing.T) {
		g := newGate(time.Second, time.Minute)
		for range 10 {
			require.False(t, g.failed("a", false, noon, 0))
		}
		require.True(t, g.open())
	})
	t.Run("an answer in between keeps it open", func(t *testing.T) {
		g := newGate(time.Second, time.Minute)
		for i := range 10 {
			require.False(t, g.failed(fmt.Sprint(i), false, noon, 0))
			require.False(t, g.answered())
		}
		require.True(t, g.open())
	})
	t.Run("its waits grow up to a limit", func(t *testing.T) {
		g := newGate(time.Second, time.Minute)
		for i := range several {
			g.failed(fmt.Sprint(i), false, noon, 0)
		}
		now, last := noon, time.Duration(0)
		for i := range 12 {
			opens, closed := g.next()
			require.True(t, closed)
			wait := opens.Sub(now)
			most := min(time.Second<<i, time.Minute)
			require.GreaterOrEqual(t, wait, most/2)
			require.LessOrEqual(t, wait, most)
			now = opens
			ok, probe := g.admit(now)
			require.True(t, ok && probe)
			_, waits := g.next()
			require.False(t, waits, "a call is under way")
			require.False(t, g.failed("x", true, now, 0), "it was closed already")
			last = wait
		}
		require.GreaterOrEqual(t, last, 30*time.Second)
	})
	t.Run("calls that were under way when it closed count no more", func(t *testing.T) {
		g := newGate(time.Second, time.Minute)
		for i := range several {
			g.failed(fmt.Sprint(i), false, noon, 0)
		}
		before, _ := g.next()
		require.False(t, g.failed("late", false, noon.Add(-time.Second), 0))
		after, _ := g.next()
		require.Equal(t, before, after)
		require.True(t, g.answered(), "but an answer opens it")
	})
	t.Run("a call that was not made lets another one through", func(t *testing.T) {
		g := newGate(time.Second, time.Minute)
		g.failed("a", false, noon, time.Minute)
		ok, _ := g.admit(noon.Add(time.Second))
		require.False(t, ok)
		g.hurry(noon)
		ok, probe := g.admit(noon.Add(time.Second))
		require.True(t, ok)
		g.abandon(probe)
		ok, _ = g.admit(noon.Add(time.Second))
		require.True(t, ok)
	})
}

func TestBackoffDoublesWithinItsBounds(t *testing.T) {
	for _, c := range []struct {
		attempts int
		most     time.Duration
	}{
		{1, time.Second}, {2, 2 * time.Second}, {3, 4 * time.Second}, {4, 5 * time.Second}, {1 << 40, 5 * time.Second},
	} {
		for range 100 {
			d := backoff(c.attempts, time.Second, 5*time.Second)
			require.GreaterOrEqual(t, d, c.most/2)
			require.LessOrEqual(t, d, c.most)
		}
	}
}

func TestContactTellsWhenItTurns(t *testing.T) {
	var c contact
	require.False(t, c.note(noon, nil))
	require.True(t, c.note(noon.Add(time.Second), errors.New("first")))
	require.False(t, c.note(noon.Add(2*time.Second), errors.New("second")))
	require.Equal(t, contact{last: noon, failingSince: noon.Add(time.Second), err: "second"}, c)
	require.True(t, c.note(noon.Add(3*time.Second), nil))
	require.Equal(t, contact{last: noon.Add(3 * time.Second)}, c)
}
