package quota

import (
	"context"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/api/state"
)

// Use returns how much of its quotas a consumer has used on a route in the current windows, the shortest window first. Quotas from which
// nothing was taken are absent. Use reads from etcd; errors are those of etcd.Store.Txn.
func (q *Quotas) Use(ctx context.Context, route, consumer string) ([]gateway.QuotaUse, error) {
	now, _ := q.clock.now()
	var use []gateway.QuotaUse
	var ops []clientv3.Op
	for k := range kinds {
		start, end := k.bounds(now)
		u := gateway.QuotaUse{
			Route: route, Consumer: consumer, Per: names[k], Window: time.Unix(0, start).UTC(), Resets: time.Unix(0, end).UTC(),
		}
		use = append(use, u)
		ops = append(ops, clientv3.OpGet(state.QuotaKey(route, consumer, u.Per, u.Window)))
	}
	resp, err := q.store.Txn(ctx, nil, ops, nil)
	if err != nil {
		return nil, err
	}
	for i, r := range resp.Responses {
		kvs := r.GetResponseRange().Kvs
		if len(kvs) == 0 {
			continue
		}
		taken, err := state.Decode[state.QuotaTaken](kvs[0].Value)
		if err != nil {
			return nil, err
		}
		use[i].Taken, use[i].Limit = taken.Taken, taken.Limit
	}
	return slices.DeleteFunc(use, func(u gateway.QuotaUse) bool { return u.Limit == 0 }), nil
}

// maxListed is the maximum number of records that List reads.
const maxListed = 20_000

// List returns what has been taken from the quotas of a route and of a consumer in the current windows; "" stands for all of them. It
// reads from etcd, at most 20,000 records.
func (q *Quotas) List(ctx context.Context, route, consumer string) ([]gateway.QuotaUse, error) {
	if route != "" && consumer != "" {
		return q.Use(ctx, route, consumer)
	}
	prefix := state.PrefixQuotas
	if route != "" {
		prefix += state.KeyPart(route) + "/"
	}
	resp, err := q.store.Txn(ctx, nil, []clientv3.Op{clientv3.OpGet(prefix, clientv3.WithPrefix(), clientv3.WithLimit(maxListed))}, nil)
	if err != nil {
		return nil, err
	}
	now, _ := q.clock.now()
	var list []gateway.QuotaUse
	for _, kv := range resp.Responses[0].GetResponseRange().Kvs {
		use, ok := q.useOf(string(kv.Key), kv.Value, now)
		if ok && (consumer == "" || use.Consumer == consumer) {
			list = append(list, use)
		}
	}
	return list, nil
}

// useOf decodes a record; ok is false if the record is invalid or not of a current window.
func (q *Quotas) useOf(key string, value []byte, now int64) (use gateway.QuotaUse, ok bool) {
	parts := strings.Split(strings.TrimPrefix(key, state.PrefixQuotas), "/")
	if len(parts) != 4 {
		return use, false
	}
	taken, err := state.Decode[state.QuotaTaken](value)
	if err != nil {
		return use, false
	}
	for k := range kinds {
		start, end := k.bounds(now)
		window := time.Unix(0, start).UTC()
		route, consumer := state.TextOf(parts[0]), state.TextOf(parts[1])
		if parts[2] == names[k] && key == state.QuotaKey(route, consumer, names[k], window) {
			return gateway.QuotaUse{
				Route: route, Consumer: consumer, Per: names[k], Window: window, Resets: time.Unix(0, end).UTC(),
				Taken: taken.Taken, Limit: taken.Limit,
			}, true
		}
	}
	return use, false
}
