package credential

import (
	"context"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/audit"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/identity"
	"github.com/openmep/mep/kit/watched"
)

// WatchEnded adds to the mirror the collection of terminated app instances, for Sweep.
func WatchEnded(m *watched.Mirror) *watched.Collection[state.Ended] {
	return watched.Add(m, "ended", state.PrefixEnded, func(_ string, value []byte, _ int64) (state.Ended, error) {
		return state.Decode[state.Ended](value)
	})
}

// Sweep removes the credentials of app instances that mepserver has terminated, and the remains of deleted credentials:
// secrets, attempts and refresh tokens. It runs until ctx ends. Any number of processes may sweep.
func (b *Book) Sweep(ctx context.Context, dir *identity.Directory, ended *watched.Collection[state.Ended], trail *audit.Log, log *slog.Logger) error {
	s := &sweeper{store: b.store, dir: dir, ended: ended, trail: trail, gone: make(map[holder]struct{}), some: make(chan struct{}, 1)}
	_, stopEnded := ended.Observe(func(c watched.Change[state.Ended]) {
		if c.New != nil {
			s.wake()
		}
	})
	defer stopEnded()
	_, stop := dir.Credentials().Observe(func(c watched.Change[*state.Credential]) {
		if c.New != nil {
			return
		}
		if ak, err := state.AccessKeyID(state.PrefixCredentials, c.Key); err == nil {
			s.add(holder{c.Old.Value.Subject, ak})
		}
	})
	defer stop()
	listed := false
	for {
		wait := time.Duration(0)
		if !listed {
			if err := b.walk(ctx, state.PrefixHolders, new(int64), s.check); err != nil {
				log.Warn("what is left of credentials that are gone is not known yet, trying again", "error", err)
				wait = 10 * time.Second
			} else {
				listed = true
			}
		}
		err := s.end(ctx)
		if err == nil {
			err = s.clear(ctx)
		}
		if err != nil && ctx.Err() == nil {
			log.Warn("what is left of credentials that are gone is not cleared away yet, trying again", "error", err)
			wait = 10 * time.Second
		}
		var again <-chan time.Time
		if wait > 0 {
			again = time.After(wait)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.some:
		case <-again:
		}
	}
}

type holder struct{ subject, accessKeyID string }

type sweeper struct {
	store *etcd.Store
	dir   *identity.Directory
	ended *watched.Collection[state.Ended]
	trail *audit.Log

	mu   sync.Mutex
	gone map[holder]struct{}
	some chan struct{}
}

func (s *sweeper) add(h holder) {
	s.mu.Lock()
	s.gone[h] = struct{}{}
	s.mu.Unlock()
	s.wake()
}

func (s *sweeper) wake() {
	select {
	case s.some <- struct{}{}:
	default:
	}
}

// end removes the credentials of terminated app instances, except those written since: then the app is back.
func (s *sweeper) end(ctx context.Context) error {
	for item := range s.ended.Snapshot().All() {
		subject := strings.TrimPrefix(item.Key, state.PrefixEnded)
		for cred := range s.dir.AppCredentials(subject) {
			if cred.ModRevision > item.ModRevision {
				continue
			}
			ak, err := state.AccessKeyID(state.PrefixCredentials, cred.Key)
			if err != nil {
				continue
			}
			ops := append(removal(subject, ak), clientv3.OpDelete(state.RefreshKeys(ak), clientv3.WithPrefix()))
			resp, err := s.store.Txn(ctx, []clientv3.Cmp{cred.Unchanged()}, ops, nil)
			if err != nil {
				return err
			}
			if resp.Succeeded {
				s.trail.Write(audit.Entry{
					Action: "credential.delete", Result: audit.Success, Caller: "platform", Target: subject, Detail: "access key " + ak + ": the app instance was terminated",
				})
			}
		}
		if _, err := s.store.Txn(ctx, []clientv3.Cmp{item.Unchanged()}, []clientv3.Op{clientv3.OpDelete(item.Key)}, nil); err != nil {
			return err
		}
	}
	return nil
}

// check adds the access key of an index key if its credential does not exist.
func (s *sweeper) check(key string, _ []byte) error {
	subject, ak, ok := strings.Cut(strings.TrimPrefix(key, state.PrefixHolders), "/")
	subject, serr := url.PathUnescape(subject)
	ak, aerr := url.PathUnescape(ak)
	if !ok || serr != nil || aerr != nil {
		return nil // not an index key
	}
	if _, there := s.dir.Credential(ak); !there {
		s.add(holder{subject, ak})
	}
	return nil
}

// clear removes what remains of deleted credentials, unless the credential exists again.
func (s *sweeper) clear(ctx context.Context) error {
	s.mu.Lock()
	var list []holder
	for h := range s.gone {
		list = append(list, h)
	}
	s.mu.Unlock()
	for _, h := range list {
		absent := clientv3.Compare(clientv3.CreateRevision(state.CredentialKey(h.accessKeyID)), "=", 0)
		ops := append(removal(h.subject, h.accessKeyID), clientv3.OpDelete(state.RefreshKeys(h.accessKeyID), clientv3.WithPrefix()))
		if _, err := s.store.Txn(ctx, []clientv3.Cmp{absent}, ops, nil); err != nil {
			return err
		}
		s.mu.Lock()
		delete(s.gone, h)
		s.mu.Unlock()
	}
	return nil
}
