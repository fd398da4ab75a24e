package blackbox

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

// troublemaker asks for whatever comes to its mind, of apps that others ask for the same. What it is answered is one of what
// can be answered; nothing is said of when.
func troublemaker(m mepm, apps []app, rng *rand.Rand, answered *atomic.Int64) error {
	for {
		a := apps[rng.IntN(len(apps))]
		method, path := "POST", instance(a.id)
		c := m.Client
		var body any
		switch dice := rng.IntN(14); dice {
		case 0, 1, 2:
			method, body = "PUT", configuration(fmt.Sprint("c", rng.IntN(3)), rng.IntN(4), rng.IntN(4))
		case 3, 4:
			path, body = path+"/operate", started
		case 5:
			path, body = path+"/operate", stopped
		case 6:
			path, body = path+"/operate", gracefulStop(1)
		case 7:
			path, body = path+"/terminate", []object{forceful, graceful(1)}[rng.IntN(2)]
		case 8:
			method = "DELETE"
		case 9, 10:
			c, method, path, body = a.Client, "PUT", a.trafficRule("t1"), but(traffic("t1"), "priority", rng.IntN(200), "state", []string{"ACTIVE", "INACTIVE"}[rng.IntN(2)])
		case 11:
			c, path, body = a.Client, a.ready(), object{"indication": "READY"}
		case 12:
			c, path, body = a.Client, a.services(), own("s")
		case 13:
			c, path, body = a.Client, a.confirmation(), object{"operationAction": []string{"STOPPING", "TERMINATING"}[rng.IntN(2)]}
		}
		answer, err := c.Try(method, path, body)
		if err != nil {
			return nil // the platform was killed
		}
		if !slices.Contains([]int{200, 201, 202, 204, 400, 403, 404, 409, 429, 503}, answer.Status) ||
			answer.Status == 400 && !strings.Contains(string(answer.Body), "operationAction") {
			return fmt.Errorf("%s %s answered %d: %s", method, path, answer.Status, answer.Body)
		}
		answered.Add(1)
	}
}

// Whatever is asked for at the same time, and however often the platform is killed meanwhile: in the end everything is over, and what
// is in force is what everybody reads.
func TestAnythingAtAnyTimeComesToAnEnd(t *testing.T) {
	t.Parallel()
	c := harness.NewController(t)
	c.Before(func(harness.RuleSet) int {
		switch rand.IntN(10) {
		case 0:
			return http.StatusServiceUnavailable
		case 1:
			time.Sleep(30 * time.Millisecond)
		}
		return 0
	})
	p := harness.Start(t, c.Option(), harness.Args("--lifecycle-rule-timeout=2s"))
	m := mepm{p.UncheckedMm5(t)}
	apps := []app{newApp(p.Unchecked(t)), newApp(p.Unchecked(t)), newApp(p.Unchecked(t))}
	for kill := range 4 {
		var working sync.WaitGroup
		var answered atomic.Int64
		failures := make(chan error, 6)
		for i := range cap(failures) {
			working.Go(func() { failures <- troublemaker(m, apps, rand.New(rand.NewPCG(uint64(i), uint64(kill))), &answered) })
		}
		harness.Eventually(t, "enough was asked for", func() error { return harness.Not(answered.Load() > 200, "%d", answered.Load()) })
		p.Kill()
		working.Wait()
		close(failures)
		for err := range failures {
			require.NoError(t, err)
		}
		p.Restart()
	}
	c.Before(nil)
	harness.EventuallyWithin(t, 2*harness.Patience, "every operation is over", func() error {
		for _, op := range m.Get(mm5 + "/app_lcm_op_occs").Is(200).Array() {
			if s := op["operationState"]; s != "COMPLETED" && s != "FAILED" {
				return fmt.Errorf("%v", op)
			}
		}
		return nil
	})
	for _, a := range apps {
		state := m.state(a.id)
		require.NotContains(t, []string{"STOPPING", "TERMINATING"}, state)
		harness.EventuallyWithin(t, 2*harness.Patience, "what is in force is what the app reads", func() error {
			want := []string{}
			for id, s := range a.states() {
				if s == "ACTIVE" {
					want = append(want, id)
				}
			}
			slices.Sort(want)
			got := append(c.Holds(harness.DNS, a.id), c.Holds(harness.Traffic, a.id)...)
			return harness.Not(slices.Equal(want, got), "%s: want %v, in force are %v", state, want, got)
		})
		if state == "STOPPED" {
			require.Empty(t, a.Get(a.services()).Array())
		}
		if r := c.Rule(harness.Traffic, a.id, "t1"); r != nil {
			require.Equal(t, a.Get(a.trafficRule("t1")).Object()["priority"], r["priority"])
		}
		m.Post(instance(a.id)+"/terminate", forceful)
		m.becomes(a.id, "")
	}
	harness.EventuallyWithin(t, 2*harness.Patience, "nothing is left over", func() error { return harness.Not(len(c.Apps()) == 0, "%v", c.Apps()) })
	require.Empty(t, m.Get(instances).Is(200).Array())
	require.Empty(t, apps[0].Get(services).Is(200).Array())
}
