// Package apps knows which application instances exist.
package apps

import (
	"context"
	"encoding/hex"
	"slices"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/watched"
)

// App is the in-memory form of an app instance. It is shared and must not be modified.
type App struct {
	// ID is the appInstanceId.
	ID string
	// Record is the stored record.
	Record state.App

	sees []string // names of the services the app may see, sorted; empty means all
}

// Sees returns the names of the services the app declared, sorted; empty when it declared none.
func (a *App) Sees() []string { return a.sees }

// Item is an app instance with its revisions.
type Item = watched.Item[*App]

// Directory holds the app instances.
type Directory struct {
	apps *watched.Collection[*App]
	dev  bool
}

// New adds the directory's collection to the mirror. With dev, every UUID counts as an app instance, which its first
// write onboards.
func New(m *watched.Mirror, dev bool) *Directory {
	return &Directory{dev: dev, apps: watched.Add(m, "apps", state.PrefixApps, decode)}
}

func decode(key string, value []byte, _ int64) (*App, error) {
	rec, err := state.Decode[state.App](value)
	if err != nil {
		return nil, err
	}
	sees := slices.Concat(rec.Requires, rec.Configured)
	slices.Sort(sees)
	return &App{ID: strings.TrimPrefix(key, state.PrefixApps), Record: rec, sees: slices.Compact(sees)}, nil
}

// Collection returns the watched copy.
func (d *Directory) Collection() *watched.Collection[*App] { return d.apps }

// Get returns the app instance if it has a record.
func (d *Directory) Get(appInstanceID string) (*Item, bool) {
	return d.apps.Snapshot().Get(state.AppKey(appInstanceID))
}

// Exists returns nil if appInstanceID is an app instance, else an error of the kind errs.NotFound.
func (d *Directory) Exists(appInstanceID string) error {
	_, err := d.find(appInstanceID)
	return err
}

// Reader is a client that discovers services. The zero value may see all of them.
type Reader struct {
	// AppInstanceID is the app that reads, empty when the request was not authenticated.
	AppInstanceID string
	// Requires lists the names of the services the app declared that it requires, sorted; empty when it declared none.
	Requires []string
	// Unknown reports that there is no such app instance: it sees nothing.
	Unknown bool
}

// SeesAll reports whether the reader may see every service, which an app that declared nothing may.
func (r Reader) SeesAll() bool { return len(r.Requires) == 0 && !r.Unknown }

// Sees reports whether the reader may see a service: one of its own, or one whose name it declared.
func (r Reader) Sees(owner, name string) bool {
	if r.Unknown {
		return false
	}
	if r.SeesAll() || owner == r.AppInstanceID {
		return true
	}
	_, declared := slices.BinarySearch(r.Requires, name)
	return declared
}

// Reader returns the app as a reader of services.
func (d *Directory) Reader(appInstanceID string) Reader {
	r := Reader{AppInstanceID: appInstanceID}
	item, err := d.find(appInstanceID)
	switch {
	case err != nil:
		r.Unknown = true
	case item != nil:
		r.Requires = item.Value.sees
	}
	return r
}

// find returns the instance's record, or nil if the first write will onboard the instance.
func (d *Directory) find(appInstanceID string) (*Item, error) {
	if item, ok := d.Get(appInstanceID); ok {
		return item, nil
	}
	if d.dev && IsUUID(appInstanceID) {
		return nil, nil
	}
	return nil, errs.New(errs.NotFound, "there is no application instance %q", appInstanceID)
}

// Pin returns what a transaction needs to create something for the app: comparisons that hold as long as the app is
// unchanged, and operations that onboard it if necessary. Errors are those of Exists, and errs.Forbidden while the app
// is stopping, stopped or terminating.
func (d *Directory) Pin(appInstanceID string, now time.Time) ([]clientv3.Cmp, []clientv3.Op, error) {
	item, err := d.find(appInstanceID)
	if err != nil {
		return nil, nil, err
	}
	key := state.AppKey(appInstanceID)
	if item == nil {
		value, err := state.Encode(state.App{Version: state.Current(), Origin: state.OriginDev, Created: now.UTC()})
		if err != nil {
			return nil, nil, err
		}
		return []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(key), "=", 0)}, []clientv3.Op{clientv3.OpPut(key, value)}, nil
	}
	switch s := item.Value.Record.State(); s {
	case mm5.LifecycleStopping, mm5.LifecycleStopped, mm5.LifecycleTerminating:
		return nil, nil, errs.New(errs.Forbidden, "application instance %s is %s: it may remove what it has, but add nothing", appInstanceID, s)
	}
	return []clientv3.Cmp{item.Unchanged()}, nil, nil
}

// WaitGone returns once there is no such app instance, or when ctx ends.
func (d *Directory) WaitGone(ctx context.Context, appInstanceID string) {
	gone := make(chan struct{})
	tell := sync.OnceFunc(func() { close(gone) })
	_, stop := d.apps.Observe(func(c watched.Change[*App]) {
		if c.New == nil && c.Old.Value.ID == appInstanceID {
			tell()
		}
	})
	defer stop()
	if _, ok := d.Get(appInstanceID); !ok {
		return
	}
	select {
	case <-gone:
	case <-ctx.Done():
	}
}

// IsUUID reports whether s is a UUID in its canonical form of 36 characters, in upper or lower case.
func IsUUID(s string) bool {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return false
	}
	var b [16]byte
	digits := make([]byte, 0, 32)
	for i := range len(s) {
		if s[i] != '-' {
			digits = append(digits, s[i])
		}
	}
	if len(digits) != 32 {
		return false
	}
	_, err := hex.Decode(b[:], digits)
	return err == nil
}

// MaxID is the maximum length of an appInstanceId in characters.
const MaxID = 63

// CheckID returns an error of the kind errs.NotFound if appInstanceID is not a valid id: no app instance can have it.
func CheckID(appInstanceID string) error {
	ok := len(appInstanceID) >= 1 && len(appInstanceID) <= MaxID && strings.Trim(appInstanceID, ".") != "" &&
		!strings.ContainsFunc(appInstanceID, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_.~:@", r)
		})
	if ok {
		return nil
	}
	return errs.New(errs.NotFound,
		"%q cannot be an appInstanceId: it has 1 to %d letters, digits and characters of \"-_.~:@\"", Clip(appInstanceID), MaxID)
}

// Clip shortens an id given by a client for use in a message.
func Clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
