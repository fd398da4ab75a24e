package blackbox

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/kit/etcdtest"
	"github.com/openmep/mep/tests/harness"
)

// producer registers, changes and removes services and remembers what was acknowledged. It is used by one goroutine at
// a time.
type producer struct {
	app
	name string
	rng  *rand.Rand
	// has holds the services that exist, as they were last put, by id.
	has map[string]object
	// gone holds the ids of those whose removal was acknowledged.
	gone map[string]bool
	// told is what a subscriber must be told, in this order: "ADDED id ACTIVE".
	told []string
	// unsure is the operation that was not answered.
	unsure *operation
	count  int
}

type operation struct {
	kind string // POST, PUT or DELETE
	id   string
	info object
}

// marked is a service whose content shows that it is whole.
func (p *producer) marked(state string) object {
	p.count++
	version := fmt.Sprint(p.count)
	return but(own(p.name), "version", version, "state", state,
		"transportInfo.implSpecificInfo", object{"whole": strings.Repeat(version+",", 40)})
}

// work works until something is not answered; acked counts what was. It returns an error when an answer is wrong.
func (p *producer) work(acked *atomic.Int64) error {
	for {
		op := p.next()
		path, want := p.services(), 201
		switch op.kind {
		case "PUT":
			path, want = p.service(op.id), 200
		case "DELETE":
			path, want = p.service(op.id), 204
		}
		var body any
		if op.info != nil {
			body = op.info
		}
		answer, err := p.Try(op.kind, path, body)
		if err != nil {
			p.unsure = op
			return nil
		}
		if answer.Status != want {
			return fmt.Errorf("%s %s answered %d: %s", op.kind, path, answer.Status, answer.Body)
		}
		if op.kind == "POST" {
			op.id = answer.Object()["serInstanceId"].(string)
		}
		p.done(op)
		acked.Add(1)
	}
}

// next picks an operation.
func (p *producer) next() *operation {
	ids := make([]string, 0, len(p.has))
	for id := range p.has {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	state := []string{"ACTIVE", "INACTIVE"}[p.rng.IntN(2)]
	dice := p.rng.IntN(100)
	if len(ids) == 0 || dice < 45 && len(ids) < 60 {
		return &operation{kind: "POST", info: p.marked(state)}
	}
	id := ids[p.rng.IntN(len(ids))]
	switch {
	case dice < 60:
		return &operation{kind: "PUT", id: id, info: p.marked(state)}
	case dice < 75:
		// Only the state changes.
		was := p.has[id]
		state = map[any]string{"ACTIVE": "INACTIVE", "INACTIVE": "ACTIVE"}[was["state"]]
		return &operation{kind: "PUT", id: id, info: but(was, "state", state)}
	}
	return &operation{kind: "DELETE", id: id}
}

// done takes note of an operation that had its effect.
func (p *producer) done(op *operation) {
	change, state := "ADDED", ""
	if op.info != nil {
		state = op.info["state"].(string)
	}
	switch op.kind {
	case "PUT":
		change = "ATTRIBUTES_CHANGED"
		if p.has[op.id]["version"] == op.info["version"] {
			change = "STATE_CHANGED"
		}
	case "DELETE":
		change, state = "REMOVED", p.has[op.id]["state"].(string)
		delete(p.has, op.id)
		p.gone[op.id] = true
	}
	if op.info != nil {
		p.has[op.id] = op.info
	}
	p.told = append(p.told, change+" "+op.id+" "+state)
}

// reconcile compares what is registered with what was acknowledged. The one operation that was not answered may have had its
// whole effect or none.
func (p *producer) reconcile(t *testing.T) {
	t.Helper()
	found := map[string]object{}
	for _, info := range p.Get(p.services()).Is(200).Array() {
		found[info["serInstanceId"].(string)] = info
	}
	if op := p.unsure; op != nil {
		p.unsure = nil
		switch op.kind {
		case "POST":
			for id := range found {
				if p.has[id] == nil && !p.gone[id] {
					require.Empty(t, op.id, "one request registered two services")
					op.id = id
				}
			}
			if op.id != "" {
				p.done(op)
			}
		case "PUT":
			if info := found[op.id]; info != nil && info["version"] == op.info["version"] && info["state"] == op.info["state"] {
				p.done(op)
			}
		case "DELETE":
			if found[op.id] == nil {
				p.done(op)
			}
		}
	}
	for id, want := range p.has {
		info := found[id]
		require.NotNil(t, info, "service %s was acknowledged and is gone", id)
		same(t, defaulted(want, id, info["_links"].(object)), info)
		same(t, info, p.Get(services+"/"+id).Is(200).Object())
	}
	for id := range found {
		require.NotNil(t, p.has[id], "service %s is there and was never registered, or was removed", id)
	}
}

// crash kills a process several times while producers work, and checks after each restart that everything that was
// acknowledged is there and nothing else, and at last that a subscriber was told of everything in order.
func crash(t *testing.T, p *harness.Process, kills, between int) {
	t.Helper()
	cb := harness.NewSubscriber(t)
	consumer := newApp(p.Client(t))
	consumer.subscribe(cb.URL("/cb"), nil)
	var producers []*producer
	for i := range 4 {
		producers = append(producers, &producer{
			app: newApp(p.Unchecked(t)), name: fmt.Sprint("p", i), rng: rand.New(rand.NewPCG(uint64(i), uint64(kills))),
			has: map[string]object{}, gone: map[string]bool{},
		})
	}
	for kill := range kills {
		var acked atomic.Int64
		var working sync.WaitGroup
		failures := make(chan error, len(producers))
		for _, pr := range producers {
			working.Go(func() { failures <- pr.work(&acked) })
		}
		goal := int64(between + rand.IntN(between))
		harness.Eventually(t, "enough was acknowledged", func() error { return harness.Not(acked.Load() >= goal, "%d of %d", acked.Load(), goal) })
		p.Kill()
		working.Wait()
		close(failures)
		for err := range failures {
			require.NoError(t, err)
		}
		p.Restart()
		degraded(t, p, false) // a daemon that etcd keeps waiting is ready with what it knew
		total := 0
		for _, pr := range producers {
			pr.reconcile(t)
			total += len(pr.has)
		}
		require.Len(t, consumer.Get(services).Is(200).Array(), total, "after kill %d", kill+1)
		require.Len(t, links(consumer), 1)
	}
	harness.EventuallyWithin(t, 2*harness.Patience, "the subscriber is told of everything", func() error {
		told := map[string][]string{}
		for _, d := range cb.Distinct() {
			told[d.Change.SerName] = append(told[d.Change.SerName], d.Change.ChangeType+" "+d.Change.SerInstanceID+" "+d.Change.State)
		}
		for _, pr := range producers {
			if got := told[pr.name]; !slices.Equal(pr.told, got) {
				n := 0
				for n < min(len(got), len(pr.told)) && got[n] == pr.told[n] {
					n++
				}
				return fmt.Errorf("%s: %d of %d changes, which differ from number %d on: want %v, told %v",
					pr.name, len(got), len(pr.told), n, pr.told[n:min(n+3, len(pr.told))], got[n:min(n+3, len(got))])
			}
		}
		return nil
	})
	// It goes on as if nothing had happened.
	consumer.register(own("end"))
	cb.AwaitChange(t, "/cb", "ADDED end ACTIVE")
}

func TestNothingAcknowledgedIsLostWhenThePlatformIsKilled(t *testing.T) {
	t.Parallel()
	crash(t, harness.Start(t, harness.Args("--log-level=info")), 5, 150)
}

func TestNothingAcknowledgedIsLostWhenTheDaemonIsKilled(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	crash(t, harness.StartMepserver(t, etcd.Endpoint()), 3, 100)
}

func TestAPlatformThatIsKilledRightAfterItsAnswerKeepsIt(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	a := newApp(p.Client(t))
	cb := harness.NewSubscriber(t)
	cb.Behave(harness.Status(500)) // so that everything is left for after the restart
	var ids []string
	for i := range 4 {
		switch i {
		case 0:
			a.subscribe(cb.URL("/cb"), nil)
		case 3:
			a.remove(ids[0])
		default:
			ids = append(ids, a.register(own(fmt.Sprint(i))).id)
		}
		p.Kill()
		p.Restart()
	}
	a.Get(a.service(ids[0])).Problem(404)
	a.Get(a.service(ids[1])).Is(200)
	require.Len(t, links(a), 1)
	cb.Behave(harness.Status(204))
	told(t, cb, "/cb", "ADDED 1 ACTIVE", "ADDED 2 ACTIVE", "REMOVED 1 ACTIVE")
}
