package main

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/openmep/mep/api/mp1"
)

// controller is a data plane controller, such as a UPF manager: the platform posts to it the complete set of an app's traffic
// rules to be in force.
type controller struct {
	screen *screen
	secret string // shared with the platform
	url    string
	told   map[string]chan set // by app instance
	fault  chan error
}

// set is the body posted by the platform.
type set struct {
	Kind          string            `json:"kind"`
	AppInstanceID string            `json:"appInstanceId"`
	TrafficRules  []mp1.TrafficRule `json:"trafficRules"`

	text []byte // as received
}

// newController starts a controller for the app instances.
func newController(s *screen, appInstanceIDs ...string) *controller {
	c := &controller{screen: s, secret: rand.Text() + rand.Text(), told: make(map[string]chan set), fault: make(chan error, 1)}
	s.secret(c.secret)
	for _, id := range appInstanceIDs {
		c.told[id] = make(chan set, 100)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	c.url = "http://" + listener.Addr().String() + "/rules"
	server := &http.Server{Handler: c, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = server.Serve(listener) }() // until the program exits
	return c
}

// ServeHTTP receives posts of the platform, which are shown at the appropriate point of the story.
func (c *controller) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := c.take(r); err != nil {
		select {
		case c.fault <- err:
		default: // the first fault is enough
		}
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if r.Method == http.MethodGet {
		_, _ = io.WriteString(w, `{"stateId": "since the demo began"}`) // the rules were never lost
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (c *controller) take(r *http.Request) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	if err := c.verify(r.Header, body); err != nil || r.Method == http.MethodGet {
		return err
	}
	told := set{text: body}
	if err := json.Unmarshal(body, &told); err != nil {
		return err
	}
	heard := c.told[told.AppInstanceID]
	if told.Kind != "TRAFFIC" || heard == nil {
		return fmt.Errorf("the controller was told of %s rules of %q", told.Kind, told.AppInstanceID)
	}
	heard <- told
	return nil
}

// verify checks that the platform, the only other holder of the secret, has just signed the time and the body.
func (c *controller) verify(h http.Header, body []byte) error {
	const tolerance = 5 * time.Second
	at := h.Get("X-Mep-Timestamp")
	if !hmac.Equal([]byte(c.signature(at, body)), []byte(h.Get("X-Mep-Signature"))) {
		return errors.New("the signature of a call to the controller is wrong")
	}
	seconds, err := strconv.ParseInt(at, 10, 64)
	if age := time.Since(time.Unix(seconds, 0)); err != nil || age.Abs() > tolerance {
		return fmt.Errorf("a call to the controller was signed at %q", at)
	}
	return nil
}

// signature returns the signature of a body at a time in seconds since 1970.
func (c *controller) signature(at string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(c.secret))
	mac.Write([]byte(at + "."))
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

// hears waits until the controller receives the rules of an app, shows them, and expects the rules with the ids to be in force
// now.
func (c *controller) hears(ctx context.Context, appInstanceID string, ruleIDs ...string) {
	select {
	case <-ctx.Done():
		must(context.Cause(ctx))
	case err := <-c.fault:
		must(err)
	case <-time.After(patience):
		must(fmt.Errorf("the controller heard nothing of the %s within %s", names[appInstanceID], patience))
	case told := <-c.told[appInstanceID]:
		c.screen.received("controller", "signed POST /rules", told.text)
		var got []string
		for _, r := range told.TrafficRules {
			expect(r.State == mp1.RuleActive, "the controller was told of a rule that is %s", r.State)
			got = append(got, r.TrafficRuleID)
		}
		expect(slices.Equal(got, ruleIDs), "the controller was told of the rules %v of the %s, want %v", got, names[appInstanceID], ruleIDs)
	}
}

// heardAll expects the controller to have received nothing that the story has not shown, except empty sets for apps without
// rules.
func (c *controller) heardAll() {
	for id, heard := range c.told {
		for len(heard) > 0 {
			told := <-heard
			expect(len(told.TrafficRules) == 0, "the controller was told of the %s once too often: %s", names[id], told.text)
		}
	}
	expect(len(c.fault) == 0, "a call to the controller was not as it should be")
}
