package harness

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

// The kinds of rules, as a controller is told of them.
const (
	Traffic = "TRAFFIC"
	DNS     = "DNS"
)

// Controller is what applies rules: a UPF manager and a DNS server in one, called by the platform's webhooks. It puts
// everything in force that it is told, unless it was told otherwise. A call that is not signed, or not as it is to be, fails the
// test.
type Controller struct {
	tb     testing.TB
	server *httptest.Server
	secret string
	file   string
	ended  chan struct{}

	mu      sync.Mutex
	stateID string
	sets    map[string]map[string]*RuleSet // by kind and app instance; only those with rules
	latest  map[string]map[string]int64    // the greatest generation of each
	calls   []RuleSet
	before  func(RuleSet) (status int)
	refuse  func(kind, ruleID string) (reason string)
}

// RuleSet is what is to be in force for an app instance.
type RuleSet struct {
	Kind          string   `json:"kind"`
	AppInstanceID string   `json:"appInstanceId"`
	AppName       string   `json:"appName"`
	Generation    int64    `json:"generation"`
	TrafficRules  []Object `json:"trafficRules"`
	DNSRules      []Object `json:"dnsRules"`

	// RequestID is the X-Request-Id of the call, At when it came.
	RequestID string    `json:"-"`
	At        time.Time `json:"-"`
}

// Rules are the rules of the set, of whichever kind.
func (s *RuleSet) Rules() []Object { return append(slices.Clone(s.TrafficRules), s.DNSRules...) }

// IDs are the ids of the rules of the set, sorted.
func (s *RuleSet) IDs() []string {
	ids := []string{}
	for _, r := range s.Rules() {
		ids = append(ids, ruleID(s.Kind, r))
	}
	slices.Sort(ids)
	return ids
}

func ruleID(kind string, rule Object) string {
	member := "trafficRuleId"
	if kind == DNS {
		member = "dnsRuleId"
	}
	id, _ := rule[member].(string)
	return id
}

// NewController runs a controller until the test ends.
func NewController(tb testing.TB) *Controller {
	tb.Helper()
	c := &Controller{
		tb: tb, secret: "a secret of enough bytes", stateID: "first", ended: make(chan struct{}), file: filepath.Join(tb.TempDir(), "secret"),
		sets: make(map[string]map[string]*RuleSet), latest: make(map[string]map[string]int64),
	}
	for _, kind := range []string{Traffic, DNS} {
		c.sets[kind], c.latest[kind] = make(map[string]*RuleSet), make(map[string]int64)
	}
	if err := os.WriteFile(c.file, []byte(c.secret+"\n"), 0o600); err != nil {
		tb.Fatalf("harness: %v", err)
	}
	c.server = httptest.NewServer(http.HandlerFunc(c.serve))
	tb.Cleanup(func() {
		close(c.ended)
		c.server.CloseClientConnections()
		c.server.Close()
	})
	return c
}

// Option makes a process call the controller for both kinds of rules.
func (c *Controller) Option() Option {
	var vars []string
	for _, name := range []string{"DATAPLANE", "DNS"} {
		vars = append(vars, "MEP_"+name+"_DRIVER=webhook", "MEP_"+name+"_URL="+c.server.URL+"/rules", "MEP_"+name+"_SECRET_FILE="+c.file)
	}
	return Env(vars...)
}

// Before is called before every set is applied, without a lock: it may take its time. Unless it returns 0 its result is the answer,
// and nothing is applied.
func (c *Controller) Before(f func(RuleSet) (status int)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.before = f
}

// Refuse says which rules are not put in force, and why; an empty reason puts one in force.
func (c *Controller) Refuse(f func(kind, ruleID string) (reason string)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refuse = f
}

// Lose makes the controller lose everything, as one does that is restarted.
func (c *Controller) Lose() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stateID += "+"
	for _, kind := range []string{Traffic, DNS} {
		clear(c.sets[kind])
	}
}

// Ended is closed when the test is over.
func (c *Controller) Ended() <-chan struct{} { return c.ended }

// Holds are the ids of the rules in force for an app instance, sorted.
func (c *Controller) Holds(kind, appInstanceID string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	ids := []string{}
	if set := c.sets[kind][appInstanceID]; set != nil {
		ids = set.IDs()
	}
	return ids
}

// Rule is a rule that is in force, nil when it is not.
func (c *Controller) Rule(kind, appInstanceID, id string) Object {
	c.mu.Lock()
	defer c.mu.Unlock()
	if set := c.sets[kind][appInstanceID]; set != nil {
		for _, r := range set.Rules() {
			if ruleID(kind, r) == id {
				return maps.Clone(r)
			}
		}
	}
	return nil
}

// Apps are the app instances with rules of any kind in force.
func (c *Controller) Apps() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	apps := append(slices.Collect(maps.Keys(c.sets[Traffic])), slices.Collect(maps.Keys(c.sets[DNS]))...)
	slices.Sort(apps)
	return slices.Compact(apps)
}

// Calls are the sets the controller was told of, in the order of arrival.
func (c *Controller) Calls() []RuleSet {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.calls)
}

// AwaitRules waits until exactly these rules of an app instance are in force.
func (c *Controller) AwaitRules(tb testing.TB, kind, appInstanceID string, ids ...string) {
	tb.Helper()
	slices.Sort(ids)
	Eventually(tb, fmt.Sprintf("the %s rules %v are in force", kind, ids), func() error {
		got := c.Holds(kind, appInstanceID)
		return Not(slices.Equal(ids, got), "in force are %v", got)
	})
}

func (c *Controller) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the platform was killed while it called
	}
	if err := c.verify(r, body); err != nil {
		c.tb.Errorf("call of the webhook: %v", err)
		w.WriteHeader(http.StatusForbidden)
		return
	}
	if r.Method == http.MethodGet {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.answer(w, nil)
		return
	}
	set := RuleSet{RequestID: r.Header.Get("X-Request-Id"), At: time.Now()}
	if err := parseSet(r, body, &set); err != nil {
		c.tb.Errorf("call of the webhook: %v: %s", err, body)
	}
	c.mu.Lock()
	c.calls = append(c.calls, set)
	before := c.before
	c.mu.Unlock()
	if before != nil {
		if status := before(set); status != 0 {
			w.WriteHeader(status)
			return
		}
	}
	if r.Context().Err() != nil {
		return // nobody waits for it any more
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer(w, c.apply(set))
}

// verify checks a signature as the documentation says it is made.
func (c *Controller) verify(r *http.Request, body []byte) error {
	stamp := r.Header.Get("X-Mep-Timestamp")
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if age := time.Since(time.Unix(seconds, 0)); err != nil || age < -time.Minute || age > time.Minute {
		return fmt.Errorf("X-Mep-Timestamp is %q", stamp)
	}
	mac := hmac.New(sha256.New, []byte(c.secret))
	_, _ = io.WriteString(mac, stamp+"."+string(body)) // a hash takes everything
	if want := "sha256=" + hex.EncodeToString(mac.Sum(nil)); r.Header.Get("X-Mep-Signature") != want {
		return fmt.Errorf("X-Mep-Signature is %q, not %q", r.Header.Get("X-Mep-Signature"), want)
	}
	return nil
}

func parseSet(r *http.Request, body []byte, set *RuleSet) error {
	if err := json.Unmarshal(body, set); err != nil {
		return err
	}
	switch want := fmt.Sprintf("%s/%s/%d", set.AppInstanceID, set.Kind, set.Generation); {
	case r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json":
		return fmt.Errorf("%s %s", r.Method, r.Header.Get("Content-Type"))
	case set.Kind == Traffic && (set.TrafficRules == nil || set.DNSRules != nil),
		set.Kind == DNS && (set.DNSRules == nil || set.TrafficRules != nil), set.Kind != Traffic && set.Kind != DNS:
		return errors.New("the rules are not those of the kind")
	case set.RequestID != want:
		return fmt.Errorf("X-Request-Id is %q, not %q", set.RequestID, want)
	}
	for _, rule := range set.Rules() {
		if rule["state"] != "ACTIVE" {
			return fmt.Errorf("a rule is to be in force that is %v", rule["state"])
		}
	}
	return nil
}

// apply puts a set in force and returns the results. To go back to an older set would break connections, so that must never be asked
// for. The caller holds the lock.
func (c *Controller) apply(set RuleSet) []Object {
	app := set.AppInstanceID
	if last := c.latest[set.Kind][app]; set.Generation < last && len(set.Rules()) > 0 {
		c.tb.Errorf("generation %d of the %s rules of %s came after %d", set.Generation, set.Kind, app, last)
	}
	c.latest[set.Kind][app] = max(set.Generation, c.latest[set.Kind][app])
	results, inForce := []Object{}, []Object{}
	for _, rule := range set.Rules() {
		id := ruleID(set.Kind, rule)
		if c.refuse != nil {
			if reason := c.refuse(set.Kind, id); reason != "" {
				results = append(results, Object{"ruleId": id, "result": "FAILED", "reason": reason})
				continue
			}
		}
		inForce = append(inForce, rule)
		results = append(results, Object{"ruleId": id, "result": "APPLIED"})
	}
	if len(inForce) == 0 {
		delete(c.sets[set.Kind], app)
		return results
	}
	if set.Kind == Traffic {
		set.TrafficRules = inForce
	} else {
		set.DNSRules = inForce
	}
	c.sets[set.Kind][app] = &set
	return results
}

// answer sends the state and results. The caller holds the lock.
func (c *Controller) answer(w http.ResponseWriter, results []Object) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(Object{"stateId": c.stateID, "results": results}); err != nil {
		return // the platform was killed while it was answered
	}
}
