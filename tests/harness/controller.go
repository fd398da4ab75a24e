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

// The kinds of rules, as sent to a controller.
const (
	Traffic = "TRAFFIC"
	DNS     = "DNS"
)

// Controller applies rules: it is a UPF manager and a DNS server in one, called by the platform's webhooks. It applies all
// rules that it receives, unless configured otherwise. A call without a valid signature fails the test.
type Controller struct {
	tb     testing.TB
	server *httptest.Server
	secret string
	file   string
	ended  chan struct{}

	mu      sync.Mutex
	stateID string
	sets    map[string]map[string]*RuleSet // by kind and app instance; only those with rules
	latest  map[string]map[string]int64    // the greatest generation of each app instance
	calls   []RuleSet
	before  func(RuleSet) (status int)
	refuse  func(kind, ruleID string) (reason string)
}

// RuleSet holds the rules to be in force for an app instance.
type RuleSet struct {
	Kind          string   `json:"kind"`
	AppInstanceID string   `json:"appInstanceId"`
	AppName       string   `json:"appName"`
	Generation    int64    `json:"generation"`
	TrafficRules  []Object `json:"trafficRules"`
	DNSRules      []Object `json:"dnsRules"`

	// RequestID is the X-Request-Id of the call, At the time of its arrival.
	RequestID string    `json:"-"`
	At        time.Time `json:"-"`
}

// Rules returns the rules of the set, of either kind.
func (s *RuleSet) Rules() []Object { return append(slices.Clone(s.TrafficRules), s.DNSRules...) }

// IDs returns the ids of the rules of the set, sorted.
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

// Before sets a function that is called before each set is applied. It is called without a lock and may block. If it returns a
// status other than 0, that is the response, and nothing is applied.
func (c *Controller) Before(f func(RuleSet) (status int)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.before = f
}

// Refuse sets a function that decides which rules are refused, and why; an empty reason applies the rule.
func (c *Controller) Refuse(f func(kind, ruleID string) (reason string)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refuse = f
}

// Lose makes the controller lose its state, as after a restart.
func (c *Controller) Lose() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stateID += "+"
	for _, kind := range []string{Traffic, DNS} {
		clear(c.sets[kind])
	}
}

// Ended returns a channel that is closed when the test is over.
func (c *Controller) Ended() <-chan struct{} { return c.ended }

// Holds returns the ids of the rules in force for an app instance, sorted.
func (c *Controller) Holds(kind, appInstanceID string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	ids := []string{}
	if set := c.sets[kind][appInstanceID]; set != nil {
		ids = set.IDs()
	}
	return ids
}

// Rule returns a rule that is in force, or nil.
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

// Apps returns the app instances with rules of any kind in force, sorted.
func (c *Controller) Apps() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	apps := append(slices.Collect(maps.Keys(c.sets[Traffic])), slices.Collect(maps.Keys(c.sets[DNS]))...)
	slices.Sort(apps)
	return slices.Compact(apps)
}

// Calls returns the sets that the controller received, in the order of arrival.
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
		return // the platform was killed during the call
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
		return // the caller has given up
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer(w, c.apply(set))
}

// verify checks a signature according to the documentation.
func (c *Controller) verify(r *http.Request, body []byte) error {
	stamp := r.Header.Get("X-Mep-Timestamp")
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if age := time.Since(time.Unix(seconds, 0)); err != nil || age < -time.Minute || age > time.Minute {
		return fmt.Errorf("X-Mep-Timestamp is %q", stamp)
	}
	mac := hmac.New(sha256.New, []byte(c.secret))
	_, _ = io.WriteString(mac, stamp+"."+string(body)) // a hash never returns an error
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

// apply puts a set in force and returns the results. Returning to an older set would break connections, so the platform must
// never request it. The caller holds the lock.
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

// answer sends the state id and the results. The caller holds the lock.
func (c *Controller) answer(w http.ResponseWriter, results []Object) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(Object{"stateId": c.stateID, "results": results}); err != nil {
		return // the platform was killed during the response
	}
}
