// Package state is what the parts of the platform share in etcd: where a record stands and what it holds.
//
// The parts never call each other; they meet here. Every value is JSON with a schema version, so that a newer
// process can read what an older one wrote.
package state

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/openmep/mep/api/mp1"
)

// Root is the prefix of every key of the platform.
const Root = "/mep/v1/"

// The prefixes of the collections. Each ends in a slash, so that no id is a prefix of another one's keys.
const (
	PrefixApps        = Root + "apps/"
	PrefixServices    = Root + "services/"
	PrefixRemoved     = Root + "removed/services/"
	PrefixAvailSubs   = Root + "subscriptions/availability/"
	PrefixTermSubs    = Root + "subscriptions/termination/"
	PrefixCursors     = Root + "cursors/"
	PrefixDeadLetters = Root + "dead_letters/"
	PrefixHeartbeats  = Root + "heartbeats/"
	PrefixElections   = Root + "elections/"
	PrefixMembers     = Root + "members/"
)

// SchemaVersion is the version this code writes. Records of a higher version are refused, not misread.
const SchemaVersion = 1

// AppKey is the key of an app instance.
func AppKey(appInstanceID string) string { return PrefixApps + appInstanceID }

// AppServices is the prefix of the services of an app instance.
func AppServices(appInstanceID string) string { return PrefixServices + appInstanceID + "/" }

// ServiceKey is the key of a service.
func ServiceKey(appInstanceID, serInstanceID string) string {
	return AppServices(appInstanceID) + serInstanceID
}

// RemovedServiceKey is the key under which the last state of a removed service is kept until every subscriber has
// been told of the removal.
func RemovedServiceKey(appInstanceID, serInstanceID string) string {
	return PrefixRemoved + appInstanceID + "/" + serInstanceID
}

// CursorKey says how far a subscriber that lags behind has been served.
func CursorKey(subscriptionID string) string { return PrefixCursors + subscriptionID }

// SplitKey divides a key "PREFIX/{owner}/{id}" into owner and id.
func SplitKey(prefix, key string) (owner, id string, err error) {
	rest, ok := strings.CutPrefix(key, prefix)
	if ok {
		owner, id, ok = strings.Cut(rest, "/")
	}
	if !ok || owner == "" || id == "" || strings.Contains(id, "/") {
		return "", "", fmt.Errorf("key %q is not of the form %s{owner}/{id}", key, prefix)
	}
	return owner, id, nil
}

// Version is the part every record begins with.
type Version struct {
	// V is the schema version, from 1.
	V int `json:"v"`
}

// Service is the record of a registered service.
type Service struct {
	Version
	// Info is the service as registered: defaults applied and transport resolved, without isLocal and _links.
	Info mp1.ServiceInfo `json:"info"`
	// Asked is the livenessInterval the app proposed, in seconds; nil when it sends no heartbeats. Info holds the
	// interval that applies.
	Asked *int `json:"asked,omitempty"`
	// Beat is the last heartbeat, or what counted as one, that was worth a write: the registration, a replacement,
	// the end of a suspension.
	Beat time.Time `json:"beat"`
	// Suspended is when the service became SUSPENDED, zero while it is not.
	Suspended time.Time `json:"suspended,omitzero"`
}

// Subscription is the record of a service availability subscription.
type Subscription struct {
	Version
	// CallbackReference is where notifications go.
	CallbackReference string `json:"callbackReference"`
	// Filter is nil when all services are meant.
	Filter *mp1.FilteringCriteria `json:"filter,omitempty"`
}

// Cursor says how far a subscriber has been served.
type Cursor struct {
	Version
	// Revision is the etcd revision up to which every matching change was delivered or given up.
	Revision int64 `json:"revision"`
}

// DeadLetter is a notification that was given up.
type DeadLetter struct {
	Version
	SubscriptionID    string         `json:"subscriptionId"`
	AppInstanceID     string         `json:"appInstanceId"`
	CallbackReference string         `json:"callbackReference"`
	Revision          int64          `json:"revision"`
	ChangeType        mp1.ChangeType `json:"changeType"`
	SerInstanceID     string         `json:"serInstanceId"`
	SerName           string         `json:"serName"`
	Attempts          int            `json:"attempts"`
	FirstAttempt      time.Time      `json:"firstAttempt"`
	GivenUp           time.Time      `json:"givenUp"`
	LastError         string         `json:"lastError"`
}

// Heartbeats is what one process tells the others of the heartbeats it received lately.
type Heartbeats struct {
	Version
	// Beats maps a serInstanceId to the time of its last heartbeat in milliseconds since the Unix epoch.
	Beats map[string]int64 `json:"beats"`
}

// Record is every kind of record, through the embedded Version.
type Record interface{ version() int }

func (v Version) version() int { return v.V }

// Decode reads a record and refuses one of a newer schema than this code knows.
func Decode[R Record](value []byte) (R, error) {
	var r R
	if err := json.Unmarshal(value, &r); err != nil {
		return r, fmt.Errorf("decode %T: %w", r, err)
	}
	if v := r.version(); v < 1 || v > SchemaVersion {
		return r, fmt.Errorf("decode %T: schema version %d is not one this release knows (1 to %d)", r, v, SchemaVersion)
	}
	return r, nil
}

// Encode writes a record. The caller has set its version.
func Encode[R Record](r R) (string, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return "", fmt.Errorf("encode %T: %w", r, err)
	}
	return string(b), nil
}

// Current is the Version of a record written by this code.
func Current() Version { return Version{V: SchemaVersion} }
