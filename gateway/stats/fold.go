package stats

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/watched"
)

// source is a record to be folded.
type source struct {
	item  *watched.Item[state.PackedStatistics]
	stats state.CallStatistics
	hour  time.Time
	span  int // index within the hour
	part  int
}

// unfolded returns the records to be folded, at most maxFolds: those of other replicas one by one, those of this one grouped by hour.
func (s *Stats) unfolded(now time.Time) [][]source {
	var groups [][]source
	var own []source
	held := s.heldKeys()
	n := 0
	for item := range s.records.Snapshot().All() {
		hour, replica, err := state.SplitStatisticsKey(item.Key)
		if err != nil || item.Value.Folded {
			continue
		}
		age := now.Sub(hour.Add(time.Hour))
		if age < keepRecent || n == maxFolds {
			break
		}
		if _, busy := held[item.Key]; busy || replica != s.replica && age < keepRecent+foldOthers {
			continue
		}
		stats, err := item.Value.Unpack()
		if err != nil {
			continue // removed when it is a week old
		}
		n++
		src := source{item: item, stats: stats, hour: hour, span: firstMinute(&stats) / int(span/time.Minute)}
		if replica != s.replica {
			groups = append(groups, []source{src})
			continue
		}
		if src.part, err = strconv.Atoi(item.Key[strings.LastIndexByte(item.Key, '/')+1:]); err == nil {
			own = append(own, src)
		}
	}
	return append(groups, together(own)...)
}

// heldKeys returns the keys of records that this process may write again. It never again writes a record that it no longer holds.
func (s *Stats) heldKeys() map[string]struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := make(map[string]struct{})
	for _, b := range s.blocks {
		for _, p := range b.parts {
			keys[p.key] = struct{}{}
		}
	}
	return keys
}

// firstMinute returns the first minute found in a record: all of them are in the same span.
func firstMinute(stats *state.CallStatistics) int {
	for _, p := range stats.Pairs {
		if len(p.Buckets) > 0 {
			return p.Buckets[0].Minute
		}
	}
	return 0
}

// together groups the records of each hour so that each group has one record of each span, mostly with the same pairs: the first parts of
// all spans, the second parts, and so on.
func together(list []source) [][]source {
	slices.SortFunc(list, func(a, b source) int {
		return cmp.Or(a.hour.Compare(b.hour), cmp.Compare(a.span, b.span), cmp.Compare(a.part, b.part))
	})
	var groups [][]source
	hour, at := 0, 0 // indexes of the hour's first group and of its next one
	var last source
	for _, src := range list {
		switch {
		case !src.hour.Equal(last.hour):
			hour, at = len(groups), len(groups)
		case src.span != last.span:
			at = hour
		}
		last = src
		if at == len(groups) {
			groups = append(groups, nil)
		}
		groups[at] = append(groups[at], src)
		at++
	}
	return groups
}

// fold replaces records of an hour with a single record of sums and moves the minutes to a key that is not watched, unless one of the
// records was changed since. Folding a single record can be repeated: if a replica that was cut off writes it again, it is folded again.
// Records folded together are never written again. fold reports whether it makes sense to continue.
func (s *Stats) fold(ctx context.Context, group []source) bool {
	ops, err := folded(group)
	if err == nil {
		unchanged := make([]clientv3.Cmp, len(group))
		for i, src := range group {
			unchanged[i] = src.item.Unchanged()
		}
		var resp *clientv3.TxnResponse
		resp, err = s.store.Txn(ctx, unchanged, ops, nil)
		if err == nil && resp.Succeeded {
			s.metrics.swept.WithLabelValues("folded").Add(float64(len(group)))
		}
	}
	if len(group) > 1 && errors.Is(err, errs.TooLarge) {
		for i := range group {
			if !s.fold(ctx, group[i:i+1]) {
				return false
			}
		}
		return true
	}
	if err != nil {
		s.log.Warn("call statistics were not folded", "key", group[0].item.Key, "error", err)
	}
	return err == nil
}

// folded returns the operations that fold a group of records.
func folded(group []source) ([]clientv3.Op, error) {
	stats := group[0].stats
	for _, src := range group[1:] {
		stats.Merge(src.stats)
	}
	minutes, err := stats.PackMinutes()
	if err != nil {
		return nil, err
	}
	hours := stats.Fold()
	packed, err := hours.Pack()
	if err != nil {
		return nil, err
	}
	key := group[0].item.Key
	at := state.MinutesKey(key)
	packed.Minutes = len(at) + len(minutes)
	value, err := state.Encode(packed)
	if err != nil {
		return nil, err
	}
	ops := []clientv3.Op{clientv3.OpPut(key, value), clientv3.OpPut(at, string(minutes))}
	for _, src := range group[1:] {
		// While this replica was cut off, another one may have folded the record before this one wrote it again.
		ops = append(ops, clientv3.OpDelete(src.item.Key), clientv3.OpDelete(state.MinutesKey(src.item.Key)))
	}
	return ops, nil
}
