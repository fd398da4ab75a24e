package liveness

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/mepserver/registry"
)

func item(id string, state mp1.ServiceState, interval int, beat time.Time) *registry.Item {
	return &registry.Item{Value: &registry.Service{AppInstanceID: "app", ID: id, State: state, Interval: interval, Beat: beat}}
}

func added(id string, interval int) registry.Change {
	return registry.Change{New: item(id, mp1.StateActive, interval, time.Now())}
}

func ids(entries []*entry) []string {
	var list []string
	for _, e := range entries {
		list = append(list, e.id)
	}
	return list
}

func TestGraceIsATenthWithinBounds(t *testing.T) {
	for interval, want := range map[time.Duration]time.Duration{
		time.Second: time.Second, 10 * time.Second: time.Second, 30 * time.Second: 3 * time.Second, time.Hour: 5 * time.Second,
	} {
		require.Equal(t, want, Grace(interval), interval)
	}
}

func TestSilentServiceIsDueAfterIntervalAndGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTracker()
		tr.restart(0)
		tr.changed(added("a", 10))
		tr.restart(0)
		time.Sleep(11*time.Second - time.Nanosecond)
		due, _, next := tr.due(time.Now())
		require.Empty(t, due)
		require.Equal(t, time.Now().Add(time.Nanosecond), next)
		time.Sleep(time.Nanosecond)
		due, _, _ = tr.due(time.Now())
		require.Equal(t, []string{"a"}, ids(due))
	})
}

func TestHeartbeatPutsTheDeadlineOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTracker()
		tr.restart(0)
		tr.changed(added("a", 10))
		for range 5 {
			time.Sleep(9 * time.Second)
			tr.heard("a", time.Now())
			due, _, _ := tr.due(time.Now())
			require.Empty(t, due)
		}
		require.Equal(t, time.Now(), tr.last("a"))
		time.Sleep(11 * time.Second)
		due, _, _ := tr.due(time.Now())
		require.Equal(t, []string{"a"}, ids(due))
	})
}

func TestInactiveUnmonitoredAndRemovedServicesAreNeverDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTracker()
		tr.restart(0)
		for _, id := range []string{"inactive", "unmonitored", "removed"} {
			tr.changed(added(id, 1))
		}
		tr.changed(registry.Change{Old: item("inactive", mp1.StateActive, 1, time.Now()), New: item("inactive", mp1.StateInactive, 1, time.Now())})
		tr.changed(registry.Change{Old: item("unmonitored", mp1.StateActive, 1, time.Now()), New: item("unmonitored", mp1.StateActive, 0, time.Now())})
		tr.changed(registry.Change{Old: item("removed", mp1.StateActive, 1, time.Now())})
		time.Sleep(time.Hour)
		due, remove, _ := tr.due(time.Now())
		require.Empty(t, due)
		require.Empty(t, remove)
		require.Equal(t, 1, tr.monitored())
		require.Zero(t, tr.active)
	})
}

func TestSuspendedServiceIsRemovedOnlyWhenAsked(t *testing.T) {
	for _, after := range []time.Duration{0, time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			tr := newTracker()
			tr.restart(0)
			tr.changed(added("a", 1))
			tr.restart(after)
			tr.changed(registry.Change{Old: item("a", mp1.StateActive, 1, time.Now()), New: item("a", mp1.StateSuspended, 1, time.Now())})
			time.Sleep(time.Minute)
			_, remove, _ := tr.due(time.Now())
			require.Equal(t, after > 0, len(remove) == 1)
		})
	}
}

func TestRestartGivesEveryoneAFullInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTracker()
		tr.restart(0)
		tr.changed(added("a", 10))
		time.Sleep(time.Hour)
		tr.restart(0)
		due, _, _ := tr.due(time.Now())
		require.Empty(t, due)
		time.Sleep(11 * time.Second)
		due, _, _ = tr.due(time.Now())
		require.Len(t, due, 1)
	})
}

func TestShorterIntervalTakesEffectAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTracker()
		tr.restart(0)
		tr.changed(added("a", 3600))
		beat := time.Now()
		tr.changed(registry.Change{Old: item("a", mp1.StateActive, 3600, beat), New: item("a", mp1.StateActive, 1, beat)})
		time.Sleep(2 * time.Second)
		due, _, _ := tr.due(time.Now())
		require.Len(t, due, 1)
	})
}

func TestMassSilencePausesExpiryForOneIntervalOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTracker()
		tr.restart(0)
		for i := range 30 {
			tr.changed(added(fmt.Sprint("silent", i), 10))
		}
		for i := range 20 {
			tr.changed(added(fmt.Sprint("alive", i), 10))
		}
		beatAlive := func() {
			for i := range 20 {
				tr.heard(fmt.Sprint("alive", i), time.Now())
			}
		}
		time.Sleep(6 * time.Second)
		beatAlive()
		time.Sleep(5 * time.Second)
		due, _, _ := tr.due(time.Now())
		require.Empty(t, due, "30 of 50 fell silent together")
		require.True(t, tr.paused(time.Now()))
		time.Sleep(5 * time.Second)
		beatAlive()
		time.Sleep(5 * time.Second)
		due, _, _ = tr.due(time.Now())
		require.Len(t, due, 30, "they stayed silent through the pause")
		require.False(t, tr.paused(time.Now()))
	})
}

func TestMassSilenceThatEndsSuspendsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTracker()
		tr.restart(0)
		for i := range 40 {
			tr.changed(added(fmt.Sprint(i), 10))
		}
		time.Sleep(11 * time.Second)
		due, _, _ := tr.due(time.Now())
		require.Empty(t, due)
		for i := range 40 {
			tr.heard(fmt.Sprint(i), time.Now())
		}
		time.Sleep(10*time.Second + 500*time.Millisecond)
		due, _, _ = tr.due(time.Now())
		require.Empty(t, due)
	})
}

func TestFewSilentServicesAreNoMass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTracker()
		tr.restart(0)
		for i := range 19 {
			tr.changed(added(fmt.Sprint(i), 10))
		}
		time.Sleep(11 * time.Second)
		due, _, _ := tr.due(time.Now())
		require.Len(t, due, 19, "all of them, but fewer than 20")
	})
}

// TestTrackerAgreesWithAScan compares the queue with a plain scan of all services, over random histories.
func TestTrackerAgreesWithAScan(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		synctest.Test(t, func(*testing.T) {
			tr := newTracker()
			tr.restart(0)
			type svc struct {
				interval int
				last     time.Time
			}
			model := make(map[string]svc)
			for range rapid.IntRange(1, 60).Draw(rt, "steps") {
				id := rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(rt, "id")
				m, known := model[id]
				switch rapid.SampledFrom([]string{"add", "beat", "remove", "sleep", "sleep"}).Draw(rt, "step") {
				case "add":
					if !known {
						m = svc{rapid.SampledFrom([]int{1, 5, 30}).Draw(rt, "interval"), time.Now()}
						tr.changed(added(id, m.interval))
						model[id] = m
					}
				case "beat":
					tr.heard(id, time.Now())
					if known {
						m.last = time.Now()
						model[id] = m
					}
				case "remove":
					if known {
						tr.changed(registry.Change{Old: item(id, mp1.StateActive, m.interval, m.last)})
						delete(model, id)
					}
				case "sleep":
					time.Sleep(time.Duration(rapid.IntRange(100, 9000).Draw(rt, "ms")) * time.Millisecond)
				}
				due, _, _ := tr.due(time.Now())
				want := make(map[string]bool)
				for id, m := range model {
					interval := time.Duration(m.interval) * time.Second
					if !time.Now().Before(m.last.Add(interval + Grace(interval))) {
						want[id] = true
						// The service is now suspended, and so no longer due.
						tr.changed(registry.Change{
							Old: item(id, mp1.StateActive, m.interval, m.last), New: item(id, mp1.StateSuspended, m.interval, m.last),
						})
						tr.changed(registry.Change{Old: item(id, mp1.StateSuspended, m.interval, m.last)})
						delete(model, id)
					}
				}
				got := make(map[string]bool)
				for _, e := range due {
					got[e.id] = true
				}
				require.Equal(rt, want, got)
			}
		})
	})
}
