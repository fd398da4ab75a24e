package stats

import (
	"context"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/etcd"
)

const (
	// minutesPage is how many records are read from etcd at a time, typically two megabytes.
	minutesPage = 100
	// minutesTime limits reading minutes, including the wait for other queries that do.
	minutesTime = 30 * time.Second
)

// addMinutes adds to an answer the minutes that etcd holds for folded records, whose keys are sorted. Answers that need minutes wait for
// each other, so that many queries take no more memory than one. The error is of the kind errs.Invalid if some are no longer kept.
func (s *Stats) addMinutes(ctx context.Context, a *answer, keys []string) error {
	if len(keys) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, minutesTime)
	defer cancel()
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return etcd.Error(ctx.Err())
	}
	missing := ""
	next, end := state.MinutesKey(keys[0]), state.MinutesKey(keys[len(keys)-1])+"\x00"
	for more := true; more && !a.full; {
		resp, err := s.store.Do(ctx, clientv3.OpGet(next, clientv3.WithRange(end), clientv3.WithLimit(minutesPage)))
		if err != nil {
			return err
		}
		for _, kv := range resp.Get().Kvs {
			key := string(kv.Key)
			next = key + "\x00"
			for len(keys) > 0 && state.MinutesKey(keys[0]) < key {
				missing, keys = keys[0], keys[1:]
			}
			// A record may have minutes but not be folded, because its replica wrote it again: it has been added already.
			if len(keys) > 0 && state.MinutesKey(keys[0]) == key {
				s.addRecord(a, keys[0], kv)
				keys = keys[1:]
			}
		}
		more = resp.Get().More
	}
	if a.full {
		return nil // the answer reports that it is full
	}
	if len(keys) > 0 {
		missing = keys[len(keys)-1]
	}
	if missing == "" {
		return nil
	}
	hour, _, err := state.SplitStatisticsKey(missing)
	if err != nil {
		return err
	}
	return errs.New(errs.Invalid, "from must not be before %s for the resolution minute: there was no room to keep older minutes",
		hour.Add(time.Hour).Format(time.RFC3339))
}

// addRecord adds the minutes of the record with the given key.
func (s *Stats) addRecord(a *answer, key string, kv *mvccpb.KeyValue) {
	hour, _, err := state.SplitStatisticsKey(key)
	var stats state.CallStatistics
	if err == nil {
		stats, err = state.UnpackMinutes(kv.Value)
	}
	if err != nil {
		s.log.Warn("minutes of call statistics left out", "key", string(kv.Key), "revision", kv.ModRevision, "error", err)
		return
	}
	a.add(hour, stats.Pairs)
}
