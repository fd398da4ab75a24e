// Package state defines the records that the parts of the platform share in etcd: their keys and their contents.
//
// The parts never call each other; they communicate through these records. Records are JSON with a schema version,
// so that a newer process can read what an older one wrote.
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

// SchemaVersion is the version this code writes. Records with a higher version are refused, not misread.
const SchemaVersion = 1

// AppKey returns the key of an app instance.
func AppKey(appInstanceID string) string { return PrefixApps + appInstanceID }

// AppServices returns the prefix of the services of an app instance.
func AppServices(appInstanceID string) string { return PrefixServices + appInstanceID + "/" }

// ServiceKey returns the key of a service.
func ServiceKey(appInstanceID, serInstanceID string) string {
	return AppServices(appInstanceID) + serInstanceID
}

// RemovedServiceKey returns the key that holds the last state of a removed service until every subscriber has been
// notified of the removal.
func RemovedServiceKey(appInstanceID, serInstanceID string) string {
	return PrefixRemoved + appInstanceID + "/" + serInstanceID
}

// CursorKey returns the key of the cursor of a subscriber that lags behind.
func CursorKey(subscriptionID string) string { return PrefixCursors + subscriptionID }

// SplitKey splits a key "PREFIX/{owner}/{id}" into owner and id.
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

// Version is embedded in every record.
type Version struct {
	// V is the schema version, from 1.
	V int `json:"v"`
}

// Service is the record of a registered service.
type Service struct {
	Version
	// Info is the service as registered, with defaults applied and the transport resolved, and without isLocal and
	// _links.
	Info mp1.ServiceInfo `json:"info"`
	// Asked is the livenessInterval the app proposed, in seconds; nil when it sends no heartbeats. Info holds the
	// effective interval.
	Asked *int `json:"asked,omitempty"`
	// Beat is the last heartbeat, or equivalent event, that was worth a write: the registration, a replacement,
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
	// Filter selects the services; nil selects all.
	Filter *mp1.FilteringCriteria `json:"filter,omitempty"`
}

// Cursor is the progress of the notifications to a subscriber.
type Cursor struct {
	Version
	// Revision is the etcd revision up to which every matching change was delivered or abandoned.
	Revision int64 `json:"revision"`
}

// DeadLetter is a notification whose delivery was abandoned.
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

// Heartbeats holds the heartbeats that one process received recently, for the other processes.
type Heartbeats struct {
	Version
	// Beats maps a serInstanceId to the time of its last heartbeat in milliseconds since the Unix epoch.
	Beats map[string]int64 `json:"beats"`
}

// Record is implemented by every kind of record, through the embedded Version.
type Record interface{ version() int }

func (v Version) version() int { return v.V }

// Decode decodes a record and refuses one with a newer schema version than this code knows.
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

// Encode encodes a record. The caller must have set its version.
func Encode[R Record](r R) (string, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return "", fmt.Errorf("encode %T: %w", r, err)
	}
	return string(b), nil
}

// Current returns the Version of a record written by this code.
func Current() Version { return Version{V: SchemaVersion} }
