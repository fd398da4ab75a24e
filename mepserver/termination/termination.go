// Package termination stores the subscriptions to termination notifications (MEC 011 7.2.3, 7.2.4) and notifies the
// subscribers (MEC 011 5.2.3, 7.1.4.2).
package termination

import (
	"context"
	"iter"

	"github.com/google/uuid"

	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/problem"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/watched"
	"github.com/openmep/mep/mepserver/apps"
	"github.com/openmep/mep/mepserver/owned"
	"github.com/openmep/mep/mepserver/subscription"
)

// APIRoot is the root of the application support API below a mount prefix.
const APIRoot = "/mec_app_support/v2"

// Subscription is the in-memory form of a subscription. It is shared and must not be modified.
type Subscription struct {
	owned.Entry[state.TerminationSubscription]
}

// Item is a subscription with its revisions.
type Item = watched.Item[*Subscription]

// Path returns the path of the subscription below the root of the API.
func (s *Subscription) Path() string { return ListPath(s.AppInstanceID) + "/" + s.ID }

// ListPath returns the path of the subscriptions of an app below the root of the API.
func ListPath(appInstanceID string) string {
	return "/applications/" + appInstanceID + "/subscriptions"
}

// Info returns the subscription as the standard shows it; base is prepended to its path.
func (s *Subscription) Info(base string) mp1.AppTerminationNotificationSubscription {
	return mp1.AppTerminationNotificationSubscription{
		SubscriptionType:  mp1.SubscriptionTypeAppTermination,
		CallbackReference: s.Record.CallbackReference,
		Links:             &mp1.SelfLinks{Self: mp1.LinkType{Href: base + s.Path()}},
		AppInstanceID:     s.AppInstanceID,
	}
}

// Book holds all subscriptions.
type Book struct {
	records *owned.Records[*Subscription]
	policy  func() subscription.Policy
}

// New adds the book's collection to the mirror.
func New(m *watched.Mirror, store *etcd.Store, dir *apps.Directory, policy func() subscription.Policy) *Book {
	return &Book{policy: policy, records: owned.New(m, store, dir, owned.Kind[*Subscription]{
		Name: "termination_subscriptions", Noun: "subscription", Prefix: state.PrefixTermSubs, Decode: decode,
	})}
}

func decode(key string, value []byte, modRevision int64) (*Subscription, error) {
	e, err := owned.DecodeEntry[state.TerminationSubscription](state.PrefixTermSubs, key, value, modRevision)
	return &Subscription{Entry: e}, err
}

// Collection returns the watched copy.
func (b *Book) Collection() *watched.Collection[*Subscription] { return b.records.Collection() }

// Create stores a subscription of the app, which must have passed its Check. Errors are of the kinds errs.NotFound (no
// such app), errs.Invalid (another app's id, or a call-back target that is refused), errs.Forbidden (over the app's
// limit, or the app is stopped or ending) and those of etcd.Store.Txn.
func (b *Book) Create(ctx context.Context, appInstanceID string, sub mp1.AppTerminationNotificationSubscription) (*Item, error) {
	policy := b.policy()
	var p problem.InvalidParams
	if sub.AppInstanceID != "" && sub.AppInstanceID != appInstanceID {
		p.Add("appInstanceId", "must be that of the path, "+appInstanceID)
	}
	if err := policy.Targets.CheckURI(sub.CallbackReference); err != nil {
		p.Add("callbackReference", err.Error())
	}
	if err := errs.Params(p); err != nil {
		return nil, err
	}
	value, err := state.Encode(state.TerminationSubscription{Version: state.Current(), CallbackReference: sub.CallbackReference})
	if err != nil {
		return nil, err
	}
	return b.records.Create(ctx, appInstanceID, uuid.NewString(), value, policy.Max)
}

// Get returns a subscription of the app. The error is of the kind errs.NotFound.
func (b *Book) Get(appInstanceID, id string) (*Item, error) { return b.records.Get(appInstanceID, id) }

// Of iterates over the subscriptions of the app.
func (b *Book) Of(appInstanceID string) iter.Seq[*Item] { return b.records.Of(appInstanceID) }

// Delete removes a subscription of the app. Errors are of the kind errs.NotFound, those of pre and those of
// etcd.Store.Txn.
func (b *Book) Delete(ctx context.Context, appInstanceID, id string, pre func(*Item) error) error {
	return b.records.Delete(ctx, appInstanceID, id, pre)
}
