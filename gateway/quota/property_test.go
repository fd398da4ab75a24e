package quota

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"pgregory.net/rapid"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/api/state"
)

// world is the state of the property test.
type world struct {
	cluster  *cluster
	route    string
	list     []*replica
	limit    int64
	per      string
	admitted map[int64]int64 // by the start of the window
	now      time.Time       // the true time; the clocks of replicas differ from it by up to half of slack
}

// offset draws how far the clock of a replica is off.
func offset(t *rapid.T) time.Duration {
	return time.Duration(rapid.Int64Range(-int64(slack)/2, int64(slack)/2).Draw(t, "offset"))
}

// pass lets time pass and removes records as early as they may expire: etcd itself would expire them in real time.
func (w *world) pass(t require.TestingT, d time.Duration) {
	w.now = w.now.Add(d)
	for _, r := range w.list {
		r.clock.pass(d)
		r.settle()
	}
	for begin := range w.admitted {
		if _, end := kindOf(w.per).bounds(begin); w.now.UnixNano() >= end+int64(slack)/2 {
			_, err := w.cluster.store.Do(context.Background(), clientv3.OpDelete(state.QuotaKey(w.route, "app", w.per, time.Unix(0, begin))))
			require.NoError(t, err)
		}
	}
}

// begins returns the start of the window that a replica last counted a call in.
func (w *world) begins(r *replica) int64 {
	a := r.accounts.lock(pair{w.route, "app"})
	defer a.mu.Unlock()
	return a.windows[kindOf(w.per)].start
}

// call makes concurrent calls at a replica; the clock does not move meanwhile.
func (w *world) call(t require.TestingT, r *replica, callers, each int) {
	var admitted atomic.Int64
	var all sync.WaitGroup
	quotas := []gateway.Quota{{Calls: w.limit, Per: w.per}}
	for range callers {
		all.Go(func() {
			for range each {
				v := r.Take(r.alive, w.route, "app", quotas, gateway.AwayRefuse)
				if v.Allowed {
					admitted.Add(1)
				}
			}
		})
	}
	all.Wait()
	if n := admitted.Load(); n > 0 {
		begin := w.begins(r)
		w.admitted[begin] += n
		require.LessOrEqual(t, w.admitted[begin], w.limit, "more was admitted than the quota says")
	}
}

// TestNeverMoreThanTheQuota runs random histories of replicas that are called, stopped, killed and started, whose clocks differ and are
// set, and whose connections to etcd lose transactions and responses. No history may admit more calls in a window than its limit; at the
// end, when all faults are gone and all replicas are called, everything left must be admitted.
func TestNeverMoreThanTheQuota(t *testing.T) {
	base := newCluster(t, 3)
	histories := 0
	rapid.Check(t, func(t *rapid.T) {
		histories++
		w := &world{
			cluster: base, route: fmt.Sprint("route ", histories), admitted: make(map[int64]int64),
			now: noon, limit: rapid.SampledFrom([]int64{1, 3, 10, 100, 1000}).Draw(t, "limit"),
			per: rapid.SampledFrom(names[:]).Draw(t, "per"),
		}
		base.size = rapid.IntRange(1, 4).Draw(t, "replicas")
		start := func() *replica { return base.start(w.now.Add(offset(t))) }
		for range base.size {
			w.list = append(w.list, start())
		}
		defer func() {
			for _, r := range w.list {
				r.close()
			}
		}()
		which := func() int { return rapid.IntRange(0, len(w.list)-1).Draw(t, "replica") }
		t.Repeat(map[string]func(*rapid.T){
			"calls": func(t *rapid.T) {
				w.call(t, w.list[which()], rapid.IntRange(1, 4).Draw(t, "callers"), rapid.IntRange(1, 40).Draw(t, "each"))
			},
			"calls everywhere": func(t *rapid.T) {
				for _, r := range w.list {
					w.call(t, r, 1, rapid.IntRange(1, 20).Draw(t, "each"))
				}
			},
			"a moment passes": func(t *rapid.T) {
				w.pass(t, time.Duration(rapid.Int64Range(0, int64(2*time.Second)).Draw(t, "moment")))
			},
			"a while passes": func(t *rapid.T) {
				w.pass(t, time.Duration(rapid.Int64Range(0, int64(2*time.Minute)).Draw(t, "while")))
			},
			"what is idle is given back": func(t *rapid.T) {
				w.pass(t, 31*time.Second)
				for _, r := range w.list {
					r.sweep()
				}
				if rapid.Bool().Draw(t, "calls meanwhile") {
					w.call(t, w.list[which()], 2, rapid.IntRange(1, 40).Draw(t, "each"))
				}
			},
			"a clock is set": func(t *rapid.T) {
				w.list[which()].clock.wall.Store(w.now.Add(offset(t)).UnixNano())
			},
			"connections lose things": func(t *rapid.T) {
				w.list[which()].faults.percent.Store(rapid.Int64Range(0, 60).Draw(t, "percent"))
			},
			"a replica is killed": func(*rapid.T) {
				i := which()
				w.list[i].kill() // etcd may or may not carry out transactions in flight
				w.list[i].settle()
				w.list[i] = start()
			},
			"a replica is stopped": func(*rapid.T) {
				i := which()
				w.list[i].close()
				w.list[i] = start()
			},
			"the limit changes": func(t *rapid.T) {
				w.limit = rapid.SampledFrom([]int64{1, 3, 10, 100, 1000}).Draw(t, "limit")
			},
		})
		w.everything(t)
	})
}

// everything calls all replicas in the same new window until nothing is left.
func (w *world) everything(t require.TestingT) {
	w.now = noon.AddDate(1, 0, 0)
	for _, r := range w.list {
		r.faults.percent.Store(0)
		r.settle()
		r.clock.wall.Store(w.now.UnixNano())
		r.clock.mono.Add(retry)
	}
	for range 4 {
		for _, r := range w.list {
			w.call(t, r, 3, int(w.limit))
			r.settle()
			r.clock.mono.Add(again) // used-up records are read again
		}
	}
	require.Equal(t, w.limit, w.admitted[w.begins(w.list[0])], "all replicas asked, but not everything was admitted")
}
