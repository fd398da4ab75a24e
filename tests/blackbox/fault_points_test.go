package blackbox

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

// faultPoints are the points at which the platform is ended, with the stories that get there.
var faultPoints = map[string][]string{
	"configure.planned":          {"terminate"},
	"configure.stored":           {"stop"},
	"operation.reported":         {"terminate"},
	"unconfigure.stored":         {"unconfigure"},
	"ending.stored":              {"stop", "terminate"},
	"ending.notice":              {"stop", "terminate"},
	"ending.after.NOTICE":        {"stop", "terminate"},
	"ending.rules":               {"stop", "terminate"},
	"ending.after.RULES":         {"stop", "terminate"},
	"ending.clear.SERVICES":      {"stop", "terminate"},
	"ending.after.SERVICES":      {"stop", "terminate"},
	"ending.clear.SUBSCRIPTIONS": {"stop", "terminate"},
	"ending.after.SUBSCRIPTIONS": {"stop", "terminate"},
	"ending.credentials":         {"terminate"},
	"ending.after.CREDENTIALS":   {"stop", "terminate"},
	"ending.end":                 {"stop", "terminate"},
	"reconcile.announced":        {"terminate"},
	"reconcile.told":             {"stop"},
	"reconcile.recorded":         {"terminate"},
	"dns.reporting":              {"stop"},
	"dns.reported":               {"terminate"},
}

var pointed = regexp.MustCompile(`fault\.Point\("([^"]*)"(.*)\)`)

// Whoever adds a point to the platform adds it here.
func TestEveryFaultPointHasItsStory(t *testing.T) {
	t.Parallel()
	root, err := harness.Repository()
	require.NoError(t, err)
	found := map[string]bool{}
	for _, module := range []string{"kit", "mepserver", "mepauth", "dnsagent", "mep"} {
		err := filepath.WalkDir(filepath.Join(root, module), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			calls := strings.Count(string(text), "fault.Point(")
			matches := pointed.FindAllStringSubmatch(string(text), -1)
			require.Len(t, matches, calls, "%s: the name of a point begins with a literal", path)
			for _, m := range matches {
				covered := false
				for point := range faultPoints {
					if point == m[1] || m[2] != "" && strings.HasPrefix(point, m[1]) {
						found[point], covered = true, true
					}
				}
				require.True(t, covered, "%s: no story gets to the point %s", path, m[1])
			}
			return nil
		})
		require.NoError(t, err)
	}
	require.Len(t, found, len(faultPoints), "of these points some are no longer there: %v", faultPoints)
}

// story is a platform that is ended at some point, and started again by whoever finds it ended.
type story struct {
	*testing.T
	p   *harness.Process
	app app
	m   mepm

	mu    sync.Mutex
	ended int
}

var errEnded = errors.New("the platform ended")

// try makes a request; without an answer the platform is started again, once it has ended.
func (s *story) try(c *harness.Client, method, path string, body any) (*harness.Answer, error) {
	s.Helper()
	answer, err := c.Try(method, path, body)
	if err == nil {
		return answer, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.p.Running() {
		return nil, err
	}
	s.ended++
	s.p.Restart(harness.Fault(""))
	return nil, errEnded
}

// persist makes a request until it is answered as it is to be.
func (s *story) persist(c *harness.Client, method, path string, body any, want int) *harness.Answer {
	s.Helper()
	var answer *harness.Answer
	harness.EventuallyWithin(s.T, 2*harness.Patience, method+" "+path, func() error {
		var err error
		if answer, err = s.try(c, method, path, body); err != nil {
			return err
		}
		return harness.Not(answer.Status == want, "answered %d: %s", answer.Status, answer.Body)
	})
	return answer
}

// operation asks for an operation until that is accepted, and waits for its good end.
func (s *story) operation(method, path string, body any) {
	s.Helper()
	accepted := s.persist(s.m.Client, method, path, body, http.StatusAccepted)
	op := harness.Path(s.T, accepted.Header.Get("Location"))
	harness.EventuallyWithin(s.T, 2*harness.Patience, "the operation is completed", func() error {
		answer, err := s.try(s.m.Client, "GET", op, nil)
		if err != nil {
			return err
		}
		return harness.Not(answer.Is(200).Object()["operationState"] == "COMPLETED", "it is %s", answer.Body)
	})
}

func TestWhereverThePlatformIsKilledItGoesOn(t *testing.T) {
	t.Parallel()
	for point, stories := range faultPoints {
		for _, kind := range stories {
			t.Run(kind+" "+point, func(t *testing.T) {
				t.Parallel()
				tell(t, kind, point)
			})
		}
	}
}

// tell tells the story of an app that is configured, starts, is configured anew, and ends, on a platform that is killed at a
// point.
func tell(t *testing.T, kind, point string) {
	t.Helper()
	c, cb := harness.NewController(t), harness.NewSubscriber(t)
	p := harness.Start(t, c.Option(), harness.Fault(point))
	s := &story{T: t, p: p, app: app{Client: p.Unchecked(t), id: uuid.NewString()}, m: mepm{p.UncheckedMm5(t)}}
	a, consumer := s.app, newApp(p.Unchecked(t))
	cb.Behave(func(w http.ResponseWriter, r *http.Request, d harness.Delivery) {
		w.WriteHeader(http.StatusNoContent)
		if d.Termination == nil {
			return
		}
		for r.Context().Err() == nil {
			if _, err := a.Try("POST", a.confirmation(), object{"operationAction": d.Termination.OperationAction}); err == nil {
				return
			}
			time.Sleep(10 * time.Millisecond) // the platform will be there again, and tell once more
		}
	})
	consumer.subscribe(cb.URL("/consumer"), nil)
	p.Auth(t).Put(harness.ConfsPath(a.id), object{}).Is(200)
	first, second := a.register(own("first")).id, a.register(own("second")).id
	a.subscribe(cb.URL("/app"), object{"serNames": []any{"none"}})
	a.mind(cb.URL("/end"))

	s.operation("PUT", instance(a.id), configuration("x", 2, 1))
	s.persist(a.Client, "POST", a.ready(), object{"indication": "READY"}, 204)
	s.operation("PUT", instance(a.id), configuration("x", 2, 2))
	c.AwaitRules(t, harness.Traffic, a.id, "t1", "t2")
	c.AwaitRules(t, harness.DNS, a.id, "d1", "d2")
	state, removed := "", []string{first, second}
	switch kind {
	case "stop":
		s.operation("POST", instance(a.id)+"/operate", gracefulStop(3600))
		state = "STOPPED"
	case "terminate":
		s.operation("POST", instance(a.id)+"/terminate", graceful(3600))
	case "unconfigure":
		s.operation("DELETE", instance(a.id), nil)
		state, removed = "NOT_CONFIGURED", nil
	}
	require.Equal(t, 1, s.ended, "the platform ended once, at %s", point)
	s.nothingIsLeft(c, cb, consumer, state, removed)

	// Nothing is stuck: the same app begins anew.
	s.operation("PUT", instance(a.id), configuration("x", 1, 1))
	s.operation("POST", instance(a.id)+"/operate", started)
	c.AwaitRules(t, harness.Traffic, a.id, "t1")
	s.operation("POST", instance(a.id)+"/terminate", forceful)
	s.nothingIsLeft(c, cb, consumer, "", nil)
}

// nothingIsLeft checks that an app that ended is in a state and has nothing, and that the removal of its services was told.
func (s *story) nothingIsLeft(c *harness.Controller, cb *harness.Subscriber, consumer app, state string, removed []string) {
	s.Helper()
	s.m.becomes(s.app.id, state)
	harness.Eventually(s.T, "no rule is left over", func() error { return harness.Not(len(c.Apps()) == 0, "left are %v", c.Apps()) })
	harness.Eventually(s.T, "no operation is", func() error {
		for _, op := range s.m.Get(mm5 + "/app_lcm_op_occs").Is(200).Array() {
			if op["operationState"] != "COMPLETED" && (op["operationState"] != "FAILED" || !strings.Contains(fmt.Sprint(op["detail"]), "overtaken")) {
				return fmt.Errorf("%v", op)
			}
		}
		return nil
	})
	for _, id := range removed {
		cb.Await(s.T, "the removal of each service is told", func(d harness.Delivery) bool {
			return d.Path == "/consumer" && d.Change.ChangeType == "REMOVED" && d.Change.SerInstanceID == id
		})
	}
	if state == "" || state == "STOPPED" {
		require.Empty(s.T, consumer.Get(services).Is(200).Array())
		require.Empty(s.T, links(s.app))
		same(s.T, []any{}, s.app.Get(s.app.endings()).Object()["_links"].(object)["subscriptions"])
	}
	has := slices.ContainsFunc(s.p.Auth(s.T).Get("/mep/appMng/v1/applications").Is(200).Array(), func(o object) bool { return o["app_ins_id"] == s.app.id })
	require.Equal(s.T, state != "", has, "credentials stay as long as the app does")
}
