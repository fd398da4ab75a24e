package reconcile

import (
	"context"
	"errors"
	"iter"
	"maps"
	"slices"
	"strings"
	"unicode"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/leader"
	"github.com/openmep/mep/kit/watched"
)

// Statuses are what all reconcilers report. A status of generation 0 says that rules were, or are about to be, sent to the
// other side and that nothing is known of them yet. They are shared and must not be changed.
type Statuses struct {
	mirror *watched.Mirror
	items  *watched.Collection[state.Status]
}

// NewStatuses adds the collection to the mirror. Call it once for a mirror.
func NewStatuses(m *watched.Mirror) *Statuses {
	return &Statuses{
		mirror: m,
		items: watched.Add(m, "status", state.PrefixStatus, func(_ string, value []byte, _ int64) (state.Status, error) {
			return state.Decode[state.Status](value)
		}),
	}
}

// Of returns what a reconciler last reported of an app instance; false when it holds nothing of it.
func (s *Statuses) Of(reconciler, appInstanceID string) (state.Status, bool) {
	item, ok := s.items.Snapshot().Get(state.StatusKey(reconciler, appInstanceID))
	if !ok {
		return state.Status{}, false
	}
	return item.Value, true
}

// at returns what a reconciler last reported of an app instance, nil when it holds nothing of it, and the revision of the last
// report of any that is known of. It is not that of the mirror, which observers hear of changes before.
func (s *Statuses) at(reconciler, appInstanceID string) (status *state.Status, revision int64) {
	snapshot := s.items.Snapshot()
	if item, ok := snapshot.Get(state.StatusKey(reconciler, appInstanceID)); ok {
		status = &item.Value
	}
	return status, snapshot.Revision()
}

// Apps walks over the app instances of which a reconciler has reported.
func (s *Statuses) Apps(reconciler string) iter.Seq[string] {
	prefix := state.StatusKey(reconciler, "")
	return func(yield func(string) bool) {
		for item := range s.items.Snapshot().Prefix(prefix) {
			if !yield(strings.TrimPrefix(item.Key, prefix)) {
				return
			}
		}
	}
}

// Observe calls fn for every report that changes, on the mirror's goroutine: fn must be quick.
func (s *Statuses) Observe(fn func(reconciler, appInstanceID string)) (stop func()) {
	_, stop = s.items.Observe(func(c watched.Change[state.Status]) {
		if reconciler, app, err := state.SplitKey(state.PrefixStatus, c.Key); err == nil {
			fn(reconciler, app)
		}
	})
	return stop
}

// catchUp waits until the copy holds what was in etcd when it was called.
func (s *Statuses) catchUp(ctx context.Context, store *etcd.Store) error {
	revision, err := store.Revision(ctx, state.PrefixStatus)
	if err != nil {
		return err
	}
	return s.mirror.WaitRevision(ctx, revision)
}

// errSucceeded says that another process leads.
var errSucceeded = errors.New("this process no longer leads")

// write stores a status record, or removes it when status is nil, as long as the term lasts. It returns the revision of the
// write. Errors are errSucceeded and those of etcd.Store.Txn.
func write(ctx context.Context, store *etcd.Store, term leader.Term, key string, status *state.Status) (int64, error) {
	op := clientv3.OpDelete(key)
	if status != nil {
		value, err := state.Encode(*status)
		if err != nil {
			return 0, err
		}
		op = clientv3.OpPut(key, value)
	}
	if status == nil || status.Generation > 0 && len(status.Applied)+len(status.Failed) == 0 {
		store = store.Urgent() // ends of app instances wait for it, and they make room
	}
	resp, err := store.Txn(ctx, term.Fence(), []clientv3.Op{op}, nil)
	if err != nil {
		return 0, err
	}
	if !resp.Succeeded {
		return 0, errSucceeded
	}
	return resp.Header.Revision, nil
}

// record is what this process knows of a status record besides what the mirror shows.
type record struct {
	begun    bool          // a write was begun, and is not known to have been made
	known    bool          // the fields below hold
	last     *state.Status // what it was; nil when there was none
	revision int64         // when
}

// same reports whether two statuses say the same; nil is that there is none.
func same(a, b *state.Status) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Generation == b.Generation && slices.Equal(a.Applied, b.Applied) && maps.Equal(a.Failed, b.Failed)
}

// maxReason bounds the reason of a rule that is not in force, in characters.
const maxReason = 128

// outcome is what a driver's report comes to for a set.
func outcome(set *Set, report Report) *state.Status {
	s := &state.Status{Version: state.Current(), Generation: set.Generation}
	for _, id := range set.RuleIDs() {
		reason, failed := report.Failed[id]
		if !failed {
			s.Applied = append(s.Applied, id)
			continue
		}
		if s.Failed == nil {
			s.Failed = make(map[string]string)
		}
		if s.Failed[id] = clip(reason); s.Failed[id] == "" {
			s.Failed[id] = "no reason was given"
		}
	}
	slices.Sort(s.Applied)
	return s
}

// clip makes a text of the other side fit to be stored and shown: one line of at most maxReason characters.
func clip(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) || unicode.IsSpace(r) {
			return r
		}
		return -1
	}, strings.ToValidUTF8(s, "\uFFFD"))
	s = strings.Join(strings.Fields(s), " ")
	n := 0
	for i := range s {
		if n++; n > maxReason {
			return s[:i]
		}
	}
	return s
}
