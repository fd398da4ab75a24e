package reconcile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/problem"
)

// answerLimit bounds the body of an answer, maxStateID the stateId in it; both are in bytes.
const (
	answerLimit = 1 << 20
	maxStateID  = 256
)

// response is the controller's response to a call.
type response struct {
	status     int
	retryAfter string
	body       []byte // at most one byte more than answerLimit
}

// answer is the body of a 200. Members that are not listed here, and results for rules that were not sent, are ignored.
type answer struct {
	StateID string   `json:"stateId"`
	Results []result `json:"results"`
}

type result struct {
	RuleID string           `json:"ruleId"`
	Result mm5.RuleProgress `json:"result"`
	Reason string           `json:"reason"`
}

// answer decodes the body.
func (r *response) answer() (*answer, error) {
	if len(r.body) > answerLimit {
		return nil, fmt.Errorf("the answer of the controller has more than %d bytes", answerLimit)
	}
	if !bytes.HasPrefix(bytes.TrimLeft(r.body, " \t\r\n"), []byte{'{'}) {
		return nil, errors.New("the answer of the controller is not a JSON object")
	}
	var a answer
	if err := json.Unmarshal(r.body, &a); err != nil {
		return nil, fmt.Errorf("the answer of the controller cannot be read: %w", err)
	}
	if len(a.StateID) > maxStateID {
		return nil, fmt.Errorf("the stateId of the controller has more than %d bytes", maxStateID)
	}
	for _, res := range a.Results {
		if res.Result != mm5.RuleApplied && res.Result != mm5.RuleFailed {
			return nil, fmt.Errorf("the controller answered with a result other than %s and %s", mm5.RuleApplied, mm5.RuleFailed)
		}
	}
	return &a, nil
}

// report returns what was achieved. If a rule has several results, a failure takes precedence.
func (a *answer) report() Report {
	var report Report
	for _, res := range a.Results {
		if res.Result == mm5.RuleFailed {
			if report.Failed == nil {
				report.Failed = make(map[string]string)
			}
			report.Failed[res.RuleID] = res.Reason
		}
	}
	return report
}

// refusal reports whether the controller refuses the set for good.
func (r *response) refusal() bool {
	switch r.status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return false
	}
	return r.status >= 400 && r.status <= 499
}

// reason returns why the controller refuses the set: the detail of a problem document, if it sent one.
func (r *response) reason() string {
	var p problem.Details
	if len(r.body) <= answerLimit && json.Unmarshal(r.body, &p) == nil && p.Detail != "" {
		return p.Detail
	}
	return fmt.Sprintf("the controller answered %d", r.status)
}
