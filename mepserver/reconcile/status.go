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

// Statuses holds what all reconcilers report. A status of generation 0 means that rules were, or are about to be, sent to the
// other side and that the outcome is not known yet. Statuses are shared and must not be modified.
type Statuses struct {
	mirror *watched.Mirror
	items  *watched.Collection[state.Status]
}

// NewStatuses adds the collection to the mirror. Call it once per mirror.
func NewStatuses(m *watched.Mirror) *Statuses {
	return &Statuses{
		mirror: m,
		items: watched.Add(m, "status", state.PrefixStatus, func(_ string, value []byte, _ int64) (state.Status, error) {
			return state.Decode[state.Status](value)
		}),
	}
}

// Of returns the last report of a reconciler on an app instance, and false if there is none.
func (s *Statuses) Of(reconciler, appInstanceID string) (state.Status, bool) {
	item, ok := s.items.Snapshot().Get(state.StatusKey(reconciler, appInstanceID))
	if !ok {
		return state.Status{}, false
	}
	return item.Value, true
}

// at returns the last report of a reconciler on an app instance, nil if there is none, and the revision of the snapshot it is
// from. That is not the revision of the mirror, which advances only after observers have heard of a change.
func (s *Statuses) at(reconciler, appInstanceID string) (status *state.Status, revision int64) {
	snapshot := s.items.Snapshot()
	if item, ok := snapshot.Get(state.StatusKey(reconciler, appInstanceID)); ok {
		status = &item.Value
	}
	return status, snapshot.Revision()
}

// Apps iterates over the app instances on which a reconciler has reported.
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

// Observe calls fn for every report that changes, on the mirror's goroutine: fn must return quickly.
func (s *Statuses) Observe(fn func(reconciler, appInstanceID string)) (stop func()) {
	_, stop = s.items.Observe(func(c watched.Change[state.Status]) {
		if reconciler, app, err := state.SplitKey(state.PrefixStatus, c.Key); err == nil {
			fn(reconciler, app)
		}
	})
	return stop
}

// catchUp waits until the copy holds what was in etcd when catchUp was called.
func (s *Statuses) catchUp(ctx context.Context, store *etcd.Store) error {
	revision, err := store.Revision(ctx, state.PrefixStatus)
	if err != nil {
		return err
	}
	return s.mirror.WaitRevision(ctx, revision)
}

// errSucceeded means that another process leads.
var errSucceeded = errors.New("this process no longer leads")

// write stores a status record, or removes it if status is nil, provided that the term still lasts. It returns the revision of
// the write. Errors are errSucceeded and those of etcd.Store.Txn.
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
		store = store.Urgent() // the end of an app instance waits for this write, and frees space
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

// record is what this process knows of a status record beyond what the mirror shows.
type record struct {
	begun    bool          // a write was begun and is not known to have succeeded
	known    bool          // the fields below are valid
	last     *state.Status // its content; nil if there was none
	revision int64         // the revision of the write
}

// same reports whether two statuses report the same outcome; nil means that there is no status.
func same(a, b *state.Status) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Generation == b.Generation && slices.Equal(a.Applied, b.Applied) && maps.Equal(a.Failed, b.Failed)
}

// maxReason bounds the reason for a rule that is not in force, in characters.
const maxReason = 128

// outcome returns the status that a driver's report amounts to for a set.
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

// clip makes text from the other side fit to be stored and shown: one line of at most maxReason characters.
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
