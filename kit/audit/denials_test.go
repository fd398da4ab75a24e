package audit_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/kit/audit"
)

func TestAFloodOfDenialsIsSummedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file, reg := path(t), prometheus.NewRegistry()
		l := open(t, audit.Config{File: file, Registerer: reg})
		denial := audit.Entry{Action: "access.deny", Result: audit.Denied}
		for range 1000 {
			l.Busy(denial)
		}
		l.Busy(act("not denied"))
		l.Write(denial)
		require.Len(t, lines(t, file), 202, "a burst, and what is no denial or matters by itself")
		time.Sleep(time.Second)
		synctest.Wait()
		all := lines(t, file)
		require.Len(t, all, 203)
		require.Equal(t, audit.ActionSuppressed, all[202].Action)
		require.Equal(t, 800, all[202].Count)

		for range 1000 {
			l.Busy(denial)
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		written, suppressed, sums := 0, 0, 0
		for _, e := range lines(t, file)[203:] {
			switch e.Action {
			case "access.deny":
				written++
			case audit.ActionSuppressed:
				suppressed += e.Count
				sums++
			}
		}
		require.Equal(t, 1000, written+suppressed)
		require.InDelta(t, 550, written, 2, "what the second of rest had earned and 50 in each of ten seconds")
		require.InDelta(t, 10, sums, 1, "one line in a second at most")

		for range 300 {
			l.Busy(denial)
		}
		require.NoError(t, l.Close())
		all = lines(t, file)
		require.Equal(t, audit.ActionSuppressed, all[len(all)-1].Action, "Close says what is left to say")
		require.InDelta(t, 2301, metric(t, reg, "mep_audit_entries_total", "access.deny", audit.Denied), 0, "all of them count")
		require.InDelta(t, 1, metric(t, reg, "mep_audit_entries_total", "credential.create", audit.Success), 0)
	})
}

// TestAFloodAtOneListenerHidesNothingOfAnother checks that a listener keeps its own share whatever arrives at the others.
func TestAFloodAtOneListenerHidesNothingOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := path(t)
		l := open(t, audit.Config{File: file})
		deny := func(listener string) {
			l.Busy(audit.Entry{Action: "access.deny", Result: audit.Denied, Listener: listener})
		}
		const seconds = 10
		for range seconds {
			for range 1000 {
				deny("gateway")
				deny("mp1")
			}
			for range 10 {
				deny("auth")
			}
			deny("")
			time.Sleep(time.Second)
			synctest.Wait() // the suppressed line of this second is written before the next begins
		}
		require.NoError(t, l.Close())
		written, suppressed, sums := make(map[string]int), make(map[string]int), make(map[string]int)
		for _, e := range lines(t, file) {
			if e.Action == audit.ActionSuppressed {
				suppressed[e.Listener] += e.Count
				sums[e.Listener]++
				continue
			}
			written[e.Listener]++
		}
		require.Equal(t, map[string]int{"auth": 10 * seconds, "": seconds}, map[string]int{"auth": written["auth"], "": written[""]})
		require.NotContains(t, suppressed, "auth")
		require.NotContains(t, suppressed, "")
		for _, name := range []string{"gateway", "mp1"} {
			require.Equal(t, 1000*seconds, written[name]+suppressed[name], name)
			require.GreaterOrEqual(t, written[name], 50+10*(seconds-1), name)
			require.InDelta(t, seconds, sums[name], 1, "one line in a second at most")
		}
		most := (150 + 40*seconds) + 2*(50+10*seconds)
		require.LessOrEqual(t, written["gateway"]+written["mp1"], most, "all together are bounded, too")
		require.GreaterOrEqual(t, written["gateway"]+written["mp1"], most-100)
	})
}

func TestTheListenerARequestCameBy(t *testing.T) {
	t.Parallel()
	require.Equal(t, "mp1", audit.Listener(t.Context(), "mp1"))
	require.Equal(t, "gateway", audit.Listener(audit.At(t.Context(), "gateway"), "mp1"))
}
