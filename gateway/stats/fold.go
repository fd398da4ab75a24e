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

// source is a record that is to be folded.
type source struct {
	item  *watched.Item[state.PackedStatistics]
	stats state.CallStatistics
	hour  time.Time
	span  int // in the hour
	part  int
}

// unfolded lists what is to be folded, at most maxFolds records: those of others one by one, and own ones of an hour together.
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
			continue // it goes when it is a week old
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

// heldKeys are those of records that this process may write once more. What it does not hold any more it never does.
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

// firstMinute is one of those a record is about: all are in the same span.
func firstMinute(stats *state.CallStatistics) int {
	for _, p := range stats.Pairs {
		if len(p.Buckets) > 0 {
			return p.Buckets[0].Minute
		}
	}
	return 0
}

// together groups the records of each hour so that those of a group, one of each span, have mostly the same pairs: the first parts of all
// spans, the second ones, and so on.
func together(list []source) [][]source {
	slices.SortFunc(list, func(a, b source) int {
		return cmp.Or(a.hour.Compare(b.hour), cmp.Compare(a.span, b.span), cmp.Compare(a.part, b.part))
	})
	var groups [][]source
	hour, at := 0, 0 // where the groups of the hour begin, and which of them is next
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

// fold writes records of an hour as one, of sums, and its minutes to where they are not copied, unless one of them was changed since. For
// a single record it is the same however often it is done: a replica that was cut off and writes it once more has it folded once more.
// Those of several are never written again. It reports whether there is a point in going on.
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

// folded is what records become.
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
		// Another replica may have folded it while this one was cut off, before it was written once more.
		ops = append(ops, clientv3.OpDelete(src.item.Key), clientv3.OpDelete(state.MinutesKey(src.item.Key)))
	}
	return ops, nil
}
