package book

import (
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/watched"
)

// Offer is a service that an app instance offers.
type Offer struct {
	// Owner is the appInstanceId of the app that offers it.
	Owner string
	// SerName is the name of the service.
	SerName string
}

// Services looks up services. It hides services that a consumer may not know of.
type Services interface {
	// Offers lists the services with the given name that the consumer may know of, each owner once.
	Offers(consumer, serName string) []Offer
	// Instance finds a service by its serInstanceId.
	Instance(consumer, serInstanceID string) (Offer, bool)
}

// Request is an access request as stored.
type Request struct {
	// Info is the request. It is shared and must not be changed.
	Info gateway.AccessRequest
	// Revision is the etcd revision at which it was last written.
	Revision int64
}

// ETag returns the entity-tag of the request, with quotes.
func (r *Request) ETag() string { return ETag(r.Revision) }

// Party is an app or a manager that deals with access requests.
type Party struct {
	// Subject is the appInstanceId of an app, or the name of a manager.
	Subject string
	// Manager says that the party may do everything.
	Manager bool
}

func (p Party) owns(r *gateway.AccessRequest) bool { return p.Manager || p.Subject == r.Owner }

// concerned reports whether the party may know of the request.
func (p Party) concerned(r *gateway.AccessRequest) bool { return p.owns(r) || p.Subject == r.Consumer }

// grant identifies the access given by a granted request.
type grant struct{ owner, serName, consumer string }

// Access holds the access requests.
type Access struct {
	*ledger
	services Services
	items    *watched.Collection[*Request]
	ids      watched.Index[*Request]
	parties  watched.Index[*Request]
	granted  *index[grant, struct{}]
	room     *room
	gone     gone
	now      func() time.Time
}

func newAccess(l *ledger, services Services) *Access {
	a := &Access{
		ledger: l, services: services, items: watched.Add(l.mirror, "gateway_access", state.PrefixAccess, decodeRequest),
		granted: newIndex[grant, struct{}](), room: newRoom("access requests", MaxRequests, MaxRequestsOf), now: time.Now,
	}
	a.ids = watched.NewIndex(a.items, func(item *watched.Item[*Request]) []string { return []string{item.Value.Info.ID} })
	a.parties = watched.NewIndex(a.items, func(item *watched.Item[*Request]) []string {
		return []string{item.Value.Info.Consumer, item.Value.Info.Owner}
	})
	a.items.Observe(a.observe)
	a.gone.follow(l.mirror)
	return a
}

func decodeRequest(key string, value []byte, revision int64) (*Request, error) {
	rec, err := state.Decode[state.Access](value)
	if err != nil {
		return nil, err
	}
	r := &Request{Info: rec.Request, Revision: revision}
	if r.key() != key {
		return nil, fmt.Errorf("the access request of %q to %q of %q is below another key", r.Info.Consumer, r.Info.SerName, r.Info.Owner)
	}
	return r, nil
}

func (r *Request) key() string { return state.AccessKey(r.Info.Owner, r.Info.SerName, r.Info.Consumer) }

func (r *Request) grant() (grant, bool) {
	return grant{r.Info.Owner, r.Info.SerName, r.Info.Consumer}, r.Info.State == gateway.AccessGranted
}

func (a *Access) observe(c watched.Change[*Request]) {
	switch {
	case c.Old == nil:
		a.room.added(c.New.Value.Info.Consumer, c.Key)
	case c.New == nil:
		a.room.removed(c.Old.Value.Info.Consumer)
	}
	if c.New != nil {
		if g, ok := c.New.Value.grant(); ok {
			a.granted.set(g, struct{}{})
			return
		}
	}
	if c.Old != nil {
		if g, ok := c.Old.Value.grant(); ok {
			a.granted.remove(g)
		}
	}
}

// Granted reports whether a consumer was granted access to the services with the given name that an app instance offers. It is used for
// every call, and neither locks nor allocates.
func (a *Access) Granted(owner, serName, consumer string) bool {
	_, ok := a.granted.get(grant{owner, serName, consumer})
	return ok
}

// Collection returns the watched copy of the requests.
func (a *Access) Collection() *watched.Collection[*Request] { return a.items }

func errNoRequest(id string) error {
	const most = 64
	if len(id) > most {
		id = strings.ToValidUTF8(id[:most], "") + "…"
	}
	return errs.New(errs.NotFound, "there is no access request %q", id)
}

// Get returns a request that concerns the party. The error is of the kind errs.NotFound.
func (a *Access) Get(id string, who Party) (*Request, error) {
	for item := range a.items.Snapshot().Find(a.ids, id) {
		if who.concerned(&item.Value.Info) {
			return item.Value, nil
		}
	}
	return nil, errNoRequest(id)
}

// Filter selects access requests. Its fields are combined by AND; the zero Filter matches all.
type Filter struct {
	State           gateway.AccessState
	Consumer, Owner string
}

func (f Filter) matches(r *gateway.AccessRequest) bool {
	return (f.State == "" || r.State == f.State) && (f.Consumer == "" || r.Consumer == f.Consumer) && (f.Owner == "" || r.Owner == f.Owner)
}

// List iterates over the requests that concern the party and match the filter, in the order of owner, service and consumer as encoded in
// keys. It starts after the place of an earlier request, as returned by Request.Place; an empty place means the beginning.
func (a *Access) List(f Filter, who Party, after string) iter.Seq[*Request] {
	snapshot := a.items.Snapshot()
	from := state.PrefixAccess + after
	all := snapshot.From(from)
	if !who.Manager {
		all = snapshot.Find(a.parties, who.Subject)
	}
	return func(yield func(*Request) bool) {
		for item := range all {
			r := item.Value
			if item.Key > from && who.concerned(&r.Info) && f.matches(&r.Info) && !yield(r) {
				return
			}
		}
	}
}

// Place returns the position of the request in a list.
func (r *Request) Place() string { return strings.TrimPrefix(r.key(), state.PrefixAccess) }

// resolve finds the service applied for. Errors are of the kinds errs.NotFound, errs.Invalid, if several app instances offer the service,
// and errs.Conflict, if it is the consumer's own.
func (a *Access) resolve(consumer string, app *gateway.AccessApplication) (Offer, error) {
	var offer Offer
	if app.SerInstanceID != "" {
		var ok bool
		if offer, ok = a.services.Instance(consumer, app.SerInstanceID); !ok {
			return offer, errs.New(errs.NotFound, "there is no service with the serInstanceId %q", app.SerInstanceID)
		}
	} else {
		offers := slices.Clone(a.services.Offers(consumer, app.SerName))
		slices.SortFunc(offers, func(a, b Offer) int { return strings.Compare(a.Owner, b.Owner) })
		switch offers = slices.Compact(offers); len(offers) {
		case 0:
			return offer, errs.New(errs.NotFound, "there is no service %q", app.SerName)
		case 1:
			offer = offers[0]
		default:
			return offer, errs.New(errs.Invalid, "%d app instances offer a service %q: say which one is meant with serInstanceId", len(offers), app.SerName)
		}
	}
	if offer.Owner == consumer {
		return offer, errs.New(errs.Conflict, "the service is the consumer's own, who needs nobody's leave")
	}
	return offer, nil
}
