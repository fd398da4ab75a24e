// Package registration stores what app instances register about themselves (MEC 011 5.2.13, 7.2.13, 7.2.14).
package registration

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/problem"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/watched"
	"github.com/openmep/mep/mepserver/apps"
)

// Registration is the in-memory form of a registration. It is shared and must not be modified.
type Registration struct {
	AppInstanceID string
	Info          mp1.AppInfo
	// ETag is the entity-tag of the resource, with quotes.
	ETag string
}

// Item is a registration with its revisions.
type Item = watched.Item[*Registration]

// Path returns the path of the registration below the root of the application support API.
func (r *Registration) Path() string { return "/registrations/" + r.AppInstanceID }

// Book holds all registrations.
type Book struct {
	mirror *watched.Mirror
	store  *etcd.Store
	apps   *apps.Directory
	items  *watched.Collection[*Registration]
	known  func(appInstanceID string) bool
	dev    bool
}

// New adds the book's collection to the mirror. known reports whether an app instance is known by anything other than
// its registration. With dev, app instances that become known by registering get the origin state.OriginDev.
func New(m *watched.Mirror, store *etcd.Store, dir *apps.Directory, known func(appInstanceID string) bool, dev bool) *Book {
	return &Book{
		mirror: m, store: store, apps: dir, known: known, dev: dev,
		items: watched.Add(m, "registrations", state.PrefixRegistrations, decode),
	}
}

func decode(key string, value []byte, modRevision int64) (*Registration, error) {
	rec, err := state.Decode[state.Registration](value)
	if err != nil {
		return nil, err
	}
	return &Registration{
		AppInstanceID: strings.TrimPrefix(key, state.PrefixRegistrations), Info: rec.Info,
		ETag: `"` + strconv.FormatInt(modRevision, 36) + `"`,
	}, nil
}

// Get returns the registration of an app instance. The error is of the kind errs.NotFound.
func (b *Book) Get(appInstanceID string) (*Item, error) {
	if item, ok := b.items.Snapshot().Get(state.RegistrationKey(appInstanceID)); ok {
		return item, nil
	}
	return nil, errs.New(errs.NotFound, "application instance %q is not registered", appInstanceID)
}

// Has reports whether an app instance is registered.
func (b *Book) Has(appInstanceID string) bool {
	_, err := b.Get(appInstanceID)
	return err == nil
}

const maxTries = 16

// Register stores what an app instance says about itself; info must have passed its Check. caller is the authenticated
// app instance, empty without authentication. Errors are of the kinds errs.Forbidden (another's id, or the instance is
// stopped or ending), errs.Invalid (not a UUID), errs.Conflict (already registered) and those of etcd.Store.Txn.
func (b *Book) Register(ctx context.Context, caller string, info mp1.AppInfo) (*Item, error) {
	id, err := b.identify(caller, info.AppInstanceID)
	if err != nil {
		return nil, err
	}
	info.AppInstanceID = id
	key := state.RegistrationKey(id)
	value, err := state.Encode(state.Registration{Version: state.Current(), Info: info})
	if err != nil {
		return nil, err
	}
	for range maxTries {
		if _, err := b.Get(id); err == nil {
			return nil, errs.New(errs.Conflict, "application instance %s is registered already: PUT changes its registration", id)
		}
		cmps, ops, err := b.admit(id, info.AppName)
		if err != nil {
			return nil, err
		}
		cmps = append(cmps, clientv3.Compare(clientv3.CreateRevision(key), "=", 0))
		if item, err := b.commit(ctx, key, value, cmps, append(ops, clientv3.OpPut(key, value))); item != nil || err != nil {
			return item, err
		}
	}
	return nil, errs.New(errs.Unavailable, "others keep changing application instance %s: try again", id).After(time.Second)
}

// identify determines which app instance registers (decision 15).
func (b *Book) identify(caller, asked string) (string, error) {
	switch {
	case caller != "" && asked != "" && asked != caller:
		return "", errs.New(errs.Forbidden, "appInstanceId is another's: the token is for %q", caller)
	case caller != "" && apps.CheckID(caller) != nil:
		return "", errs.New(errs.Forbidden, "the token is for %q, which cannot be an appInstanceId: it has 1 to %d letters, digits and characters of \"-_.~:@\"",
			apps.Clip(caller), apps.MaxID)
	case caller != "":
		return caller, nil
	case asked == "":
		return uuid.NewString(), nil
	case !apps.IsUUID(asked):
		var p problem.InvalidParams
		p.Add("appInstanceId", "must be a UUID")
		return "", errs.Params(p)
	}
	return asked, nil
}

// admit returns what the transaction needs to make the app instance known, if it is not.
func (b *Book) admit(id, name string) ([]clientv3.Cmp, []clientv3.Op, error) {
	item, ok := b.apps.Get(id)
	if ok {
		return b.apps.Pin(id, time.Now())
	}
	origin := state.OriginRegistration
	if b.dev && item == nil {
		origin = state.OriginDev
	}
	value, err := state.Encode(state.App{Version: state.Current(), Name: name, Origin: origin, Created: time.Now().UTC()})
	if err != nil {
		return nil, nil, err
	}
	key := state.AppKey(id)
	return []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(key), "=", 0)}, []clientv3.Op{clientv3.OpPut(key, value)}, nil
}

// commit runs a transaction that writes a registration. It returns nil, nil when the comparisons did not hold and the
// caller should try again.
func (b *Book) commit(ctx context.Context, key, value string, cmps []clientv3.Cmp, ops []clientv3.Op) (*Item, error) {
	resp, err := b.store.Txn(ctx, cmps, ops, nil)
	if err != nil {
		return nil, err
	}
	revision := resp.Header.Revision
	err = b.mirror.CatchUp(ctx, revision)
	if !resp.Succeeded {
		return nil, err
	}
	v, err := decode(key, []byte(value), revision)
	if err != nil {
		return nil, err
	}
	return &Item{Key: key, Value: v, ModRevision: revision}, nil
}

// Replace changes the registration of an app instance unless pre returns an error. Errors are those of pre, of the
// kinds errs.NotFound and errs.Invalid (another id), and those of etcd.Store.Txn.
func (b *Book) Replace(ctx context.Context, appInstanceID string, info mp1.AppInfo, pre func(*Item) error) (*Item, error) {
	if info.AppInstanceID != "" && info.AppInstanceID != appInstanceID {
		var p problem.InvalidParams
		p.Add("appInstanceId", "must be absent or that of the path, "+appInstanceID)
		return nil, errs.Params(p)
	}
	info.AppInstanceID = appInstanceID
	value, err := state.Encode(state.Registration{Version: state.Current(), Info: info})
	if err != nil {
		return nil, err
	}
	for range maxTries {
		item, err := b.Get(appInstanceID)
		if err == nil {
			err = pre(item)
		}
		if err != nil {
			return nil, err
		}
		if present, err := state.Encode(state.Registration{Version: state.Current(), Info: item.Value.Info}); err == nil && present == value {
			resp, err := b.store.Txn(ctx, []clientv3.Cmp{item.Unchanged()}, nil, nil)
			if err != nil || resp.Succeeded {
				return item, err
			}
			if err := b.mirror.CatchUp(ctx, resp.Header.Revision); err != nil {
				return nil, err
			}
			continue
		}
		next, err := b.commit(ctx, item.Key, value, []clientv3.Cmp{item.Unchanged()}, []clientv3.Op{clientv3.OpPut(item.Key, value)})
		if next != nil || err != nil {
			return next, err
		}
	}
	return nil, errs.New(errs.Unavailable, "others keep changing the registration of %s: try again", appInstanceID).After(time.Second)
}

// Remove deletes the registration of an app instance. An app instance that nothing else made known is then terminated
// with everything it owns. Errors are as for Replace.
func (b *Book) Remove(ctx context.Context, appInstanceID string, pre func(*Item) error) error {
	for range maxTries {
		item, err := b.Get(appInstanceID)
		if err == nil {
			err = pre(item)
		}
		if err != nil {
			return err
		}
		cmps, ops := []clientv3.Cmp{item.Unchanged()}, []clientv3.Op{clientv3.OpDelete(item.Key)}
		app, ok := b.apps.Get(appInstanceID)
		ends := ok && app.Value.Record.Origin == state.OriginRegistration && app.Value.Record.State() == mm5.LifecycleKnown && !b.known(appInstanceID)
		if ends {
			rec, now := app.Value.Record, time.Now().UTC()
			rec.Lifecycle = mm5.LifecycleTerminating
			rec.Ending = &state.Ending{Action: mp1.ActionTerminating, Deadline: now, Step: state.StepRules, RulesUntil: now}
			value, err := state.Encode(rec)
			if err != nil {
				return err
			}
			cmps, ops = append(cmps, app.Unchanged()), append(ops, clientv3.OpPut(app.Key, value))
		}
		resp, err := b.store.Urgent().Txn(ctx, cmps, ops, nil)
		if err != nil {
			return err
		}
		if err = b.mirror.CatchUp(ctx, resp.Header.Revision); err != nil && !resp.Succeeded {
			return err
		}
		if resp.Succeeded {
			if ends {
				// The caller should find the app instance gone.
				gone, cancel := context.WithTimeout(ctx, 2*time.Second)
				defer cancel()
				b.apps.WaitGone(gone, appInstanceID)
			}
			return nil
		}
	}
	return errs.New(errs.Unavailable, "others keep changing the registration of %s: try again", appInstanceID).After(time.Second)
}
