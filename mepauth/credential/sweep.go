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
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/identity"
	"github.com/openmep/mep/kit/watched"
)

// Sweep clears away what belongs to credentials that are gone: secrets, attempts and refresh tokens. When an app instance is
// terminated, only what everybody knows of its credentials is removed with it, since no other part of the platform is to get at
// secrets. Any number of processes may sweep.
func (b *Book) Sweep(ctx context.Context, dir *identity.Directory, log *slog.Logger) error {
	s := &sweeper{store: b.store, dir: dir, gone: make(map[holder]struct{}), some: make(chan struct{}, 1)}
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
		if err := s.clear(ctx); err != nil && ctx.Err() == nil {
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

	mu   sync.Mutex
	gone map[holder]struct{}
	some chan struct{}
}

func (s *sweeper) add(h holder) {
	s.mu.Lock()
	s.gone[h] = struct{}{}
	s.mu.Unlock()
	select {
	case s.some <- struct{}{}:
	default:
	}
}

// check looks at one key of the index of who holds which access key.
func (s *sweeper) check(key string, _ []byte) error {
	subject, ak, ok := strings.Cut(strings.TrimPrefix(key, state.PrefixHolders), "/")
	subject, serr := url.PathUnescape(subject)
	ak, aerr := url.PathUnescape(ak)
	if !ok || serr != nil || aerr != nil {
		return nil // nobody's
	}
	if _, there := s.dir.Credential(ak); !there {
		s.add(holder{subject, ak})
	}
	return nil
}

// clear removes what is left, unless the credential is there again.
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
