package notify

import (
	"slices"
	"strings"
	"time"

	"github.com/openmep/mep/api/state"
)

// Delivery is the state of delivery to one subscriber.
type Delivery struct {
	SubscriptionID    string `json:"subscriptionId"`
	AppInstanceID     string `json:"appInstanceId"`
	CallbackReference string `json:"callbackReference"`
	// Pending is how many notifications are waiting.
	Pending int `json:"pending"`
	// Cursor is the etcd revision up to which the subscriber has been served.
	Cursor int64 `json:"cursor"`
	// LastDelivered, LastAttempt and FailingSince are zero if there was no such thing since this process began to lead.
	LastDelivered time.Time `json:"lastDelivered,omitzero"`
	LastAttempt   time.Time `json:"lastAttempt,omitzero"`
	FailingSince  time.Time `json:"failingSince,omitzero"`
	LastError     string    `json:"lastError,omitempty"`
	// Attempts is how often the next notification has been tried.
	Attempts int `json:"attempts"`
}

// Deliveries returns the state of delivery to every subscriber, by subscription id. Only the leading process knows more
// than the cursors.
func (n *Notifier) Deliveries() []Delivery {
	cursors := n.cursors.Snapshot()
	cursor := func(id string) int64 {
		if c, ok := cursors.Get(state.CursorKey(id)); ok {
			return c.Value.Revision
		}
		return 0
	}
	list := []Delivery{}
	n.mu.Lock()
	defer n.mu.Unlock()
	position := n.position
	if !n.leading {
		position = cursor(positionID)
	}
	for item := range n.book.Collection().Snapshot().All() {
		sub := item.Value
		d := Delivery{
			SubscriptionID: sub.ID, AppInstanceID: sub.AppInstanceID,
			CallbackReference: sub.Record.CallbackReference, Cursor: position,
		}
		if f := n.feeds[sub.ID]; n.leading && f != nil {
			d.Pending, d.Cursor, d.Attempts = len(f.queue), f.cursor(position), f.attempts
			d.LastDelivered, d.LastAttempt, d.FailingSince = f.delivered.UTC(), f.attempted.UTC(), f.failingSince.UTC()
			d.LastError = f.lastError
		} else if c := cursor(sub.ID); !n.leading && c != 0 {
			d.Cursor = c
		}
		list = append(list, d)
	}
	slices.SortFunc(list, func(a, b Delivery) int { return strings.Compare(a.SubscriptionID, b.SubscriptionID) })
	return list
}

// DeadLetter is a notification that was given up.
type DeadLetter struct {
	ID string `json:"id"`
	state.DeadLetter
}

// DeadLetters returns the notifications that were given up, oldest first; at most 1,000 are kept.
func (n *Notifier) DeadLetters() []DeadLetter {
	list := []DeadLetter{}
	for item := range n.deadLetters.Snapshot().All() {
		list = append(list, DeadLetter{ID: strings.TrimPrefix(item.Key, state.PrefixDeadLetters), DeadLetter: item.Value})
	}
	slices.SortStableFunc(list, func(a, b DeadLetter) int { return a.GivenUp.Compare(b.GivenUp) })
	return list
}
