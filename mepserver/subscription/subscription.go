// Package subscription stores the subscriptions to service availability notifications (MEC 011 8.2.8, 8.2.9).
package subscription

import (
	"context"
	"iter"
	"slices"

	"github.com/google/uuid"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/problem"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/watched"
	"github.com/openmep/mep/mepserver/apps"
	"github.com/openmep/mep/mepserver/callback"
	"github.com/openmep/mep/mepserver/owned"
	"github.com/openmep/mep/mepserver/registry"
)

// Subscription is the in-memory form of a subscription. It is shared and must not be modified.
type Subscription struct {
	owned.Entry[state.Subscription]
}

// Item is a subscription with its revisions.
type Item = watched.Item[*Subscription]

// Path returns the path of the subscription resource below a mount prefix.
func (s *Subscription) Path() string { return ListPath(s.AppInstanceID) + "/" + s.ID }

// ListPath returns the path of the subscriptions of an app below a mount prefix.
func ListPath(appInstanceID string) string {
	return registry.APIRoot + "/applications/" + appInstanceID + "/subscriptions"
}

// Info returns the subscription as the standard shows it; base is prepended to its path.
func (s *Subscription) Info(base string) mp1.SerAvailabilityNotificationSubscription {
	return mp1.SerAvailabilityNotificationSubscription{
		SubscriptionType:  mp1.SubscriptionTypeSerAvailability,
		CallbackReference: s.Record.CallbackReference,
		Links:             &mp1.SelfLinks{Self: mp1.LinkType{Href: base + s.Path()}},
		FilteringCriteria: s.Record.Filter,
	}
}

// Matches reports whether a service in its given state meets the filter of the subscription.
func (s *Subscription) Matches(svc *registry.Service) bool {
	f := s.Record.Filter
	if f == nil {
		return true
	}
	switch {
	case len(f.SerInstanceIDs) > 0 && !slices.Contains(f.SerInstanceIDs, svc.ID),
		len(f.SerNames) > 0 && !slices.Contains(f.SerNames, svc.Name),
		len(f.SerCategories) > 0 && !inCategories(svc.CategoryID, f.SerCategories),
		len(f.States) > 0 && !slices.Contains(f.States, svc.State),
		f.IsLocal != nil && !*f.IsLocal: // every service of this host's store is local to it
		return false
	}
	return true
}

// Narrow reports whether the subscription names the services it is about.
func (s *Subscription) Narrow() bool {
	f := s.Record.Filter
	return f != nil && len(f.SerInstanceIDs)+len(f.SerNames)+len(f.SerCategories) > 0
}

// inCategories compares ids, which identify categories, as discovery does.
func inCategories(id string, among []mp1.CategoryRef) bool {
	return id != "" && slices.ContainsFunc(among, func(c mp1.CategoryRef) bool { return c.ID == id })
}

// Policy holds the operator's settings for subscriptions.
type Policy struct {
	// Max is how many subscriptions one app may have.
	Max int
	// Targets says which notification targets are allowed.
	Targets *callback.Policy
}

// Book holds all subscriptions.
type Book struct {
	records *owned.Records[*Subscription]
	apps    *apps.Directory
	policy  func() Policy
	about   watched.Index[*Subscription]
}

// New adds the book's collection to the mirror.
func New(m *watched.Mirror, store *etcd.Store, dir *apps.Directory, policy func() Policy) *Book {
	b := &Book{apps: dir, policy: policy}
	b.records = owned.New(m, store, dir, owned.Kind[*Subscription]{
		Name: "subscriptions", Noun: "subscription", Prefix: state.PrefixAvailSubs, Decode: decode,
	})
	b.about = watched.NewIndex(b.records.Collection(), subjects)
	return b
}

func decode(key string, value []byte, modRevision int64) (*Subscription, error) {
	e, err := owned.DecodeEntry[state.Subscription](state.PrefixAvailSubs, key, value, modRevision)
	return &Subscription{Entry: e}, err
}

// Index keys for the subject of a subscription: a key for all services, and prefixes of keys. Only one of the three
// criteria can be present.
const (
	aboutAll      = "*"
	aboutInstance = "i "
	aboutName     = "n "
	aboutCategory = "c "
)

func subjects(it *Item) []string {
	f := it.Value.Record.Filter
	var keys []string
	if f != nil {
		for _, id := range f.SerInstanceIDs {
			keys = append(keys, aboutInstance+id)
		}
		for _, n := range f.SerNames {
			keys = append(keys, aboutName+n)
		}
		for _, c := range f.SerCategories {
			keys = append(keys, aboutCategory+c.ID)
		}
	}
	if len(keys) == 0 {
		return []string{aboutAll}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// Interested iterates over the subscriptions that concern a service. Its cost grows with the number of candidates, not
// of subscriptions.
func (b *Book) Interested(svc *registry.Service) iter.Seq[*Item] {
	keys := []string{aboutAll, aboutInstance + svc.ID, aboutName + svc.Name}
	if svc.CategoryID != "" {
		keys = append(keys, aboutCategory+svc.CategoryID)
	}
	snap := b.Collection().Snapshot()
	return func(yield func(*Item) bool) {
		for _, k := range keys {
			for item := range snap.Find(b.about, k) {
				if b.Concerns(item.Value, svc) && !yield(item) {
					return
				}
			}
		}
	}
}

// Concerns reports whether a subscriber is to be notified of a service in its given state: the subscription matches,
// and the app may see the service.
func (b *Book) Concerns(sub *Subscription, svc *registry.Service) bool {
	return sub.Matches(svc) && b.apps.Reader(sub.AppInstanceID).Sees(svc.AppInstanceID, svc.Name)
}

// Collection returns the watched copy.
func (b *Book) Collection() *watched.Collection[*Subscription] { return b.records.Collection() }

// Create stores a subscription, which must have passed its Check. Errors are of the kinds errs.NotFound (no such app),
// errs.Invalid (a call-back target that is refused), errs.Forbidden (over the app's limit, or the app is stopped or
// ending) and those of etcd.Store.Txn.
func (b *Book) Create(ctx context.Context, appInstanceID string, sub mp1.SerAvailabilityNotificationSubscription) (*Item, error) {
	policy := b.policy()
	if err := policy.Targets.CheckURI(sub.CallbackReference); err != nil {
		var p problem.InvalidParams
		p.Add("callbackReference", err.Error())
		return nil, errs.Params(p)
	}
	value, err := state.Encode(state.Subscription{
		Version: state.Current(), CallbackReference: sub.CallbackReference, Filter: sub.FilteringCriteria,
	})
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
	return b.records.Delete(ctx, appInstanceID, id, pre, clientv3.OpDelete(state.CursorKey(id)))
}
