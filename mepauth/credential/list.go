package credential

import (
	"context"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/state"
)

// page is the number of records read at a time.
const page = 1000

// List returns all credentials, ordered by access key.
func (b *Book) List(ctx context.Context) ([]Known, error) {
	secrets := make(map[string]state.Secrets)
	apps := make(map[string]state.App)
	var list []Known
	revision := int64(0)
	for _, prefix := range []string{state.PrefixSecrets, state.PrefixApps, state.PrefixCredentials} {
		err := b.walk(ctx, prefix, &revision, func(key string, value []byte) error {
			switch prefix {
			case state.PrefixSecrets:
				rec, err := state.Decode[state.Secrets](value)
				secrets[strings.TrimPrefix(key, prefix)] = rec
				return err
			case state.PrefixApps:
				rec, err := state.Decode[state.App](value)
				apps[strings.TrimPrefix(key, prefix)] = rec
				return err
			}
			rec, err := state.Decode[state.Credential](value)
			if err != nil {
				return err
			}
			ak, err := state.AccessKeyID(prefix, key)
			list = append(list, known(ak, rec, secrets[strings.TrimPrefix(key, prefix)], apps[rec.Subject].Requires, b.now()))
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}

// walk reads a prefix page by page at one revision. The first page sets the revision if it is 0.
func (b *Book) walk(ctx context.Context, prefix string, revision *int64, each func(key string, value []byte) error) error {
	from := prefix
	for {
		resp, err := b.store.Do(ctx, clientv3.OpGet(from, clientv3.WithRange(clientv3.GetPrefixRangeEnd(prefix)),
			clientv3.WithLimit(page), clientv3.WithRev(*revision)))
		if err != nil {
			return err
		}
		got := resp.Get()
		if *revision == 0 {
			*revision = got.Header.Revision
		}
		for _, kv := range got.Kvs {
			if err := each(string(kv.Key), kv.Value); err != nil {
				return err
			}
			from = string(kv.Key) + "\x00"
		}
		if !got.More {
			return nil
		}
	}
}
