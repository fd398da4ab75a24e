package stats

import (
	"context"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/etcd"
)

const (
	// maxRoom is how many bytes of etcd the older minutes of all replicas may take: those of some 4,000 pairs that call in every minute
	// of the week. Records, which hold the recent minutes and all sums, may take as much.
	maxRoom = 128 << 20
	// partOfQuota is a divisor: minutes and records may each take 1/partOfQuota of etcd's quota.
	partOfQuota = 16
	// overhead is about how many bytes a record takes besides its key and body.
	overhead = 32
)

// use is how many bytes the records of an hour, and their minutes stored separately, take.
type use struct {
	hour             time.Time
	records, minutes int64
}

// uses returns the use of each hour, oldest first.
func (s *Stats) uses() []use {
	var list []use
	for item := range s.records.Snapshot().All() {
		hour, _, err := state.SplitStatisticsKey(item.Key)
		if err != nil {
			continue
		}
		if n := len(list); n == 0 || !list[n-1].hour.Equal(hour) {
			list = append(list, use{hour: hour})
		}
		u := &list[len(list)-1]
		u.records += int64(len(item.Key) + overhead + len(item.Value.Body)*4/3)
		u.minutes += int64(max(0, item.Value.Minutes))
	}
	return list
}

// since returns the first hour from which on everything kept fits into room; the zero time if all hours fit.
func since(uses []use, size func(use) int64, room int64) time.Time {
	for _, u := range slices.Backward(uses) {
		if room -= size(u); room < 0 {
			return u.hour.Add(time.Hour)
		}
	}
	return time.Time{}
}

func (u use) ofRecords() int64 { return u.records }
func (u use) ofMinutes() int64 { return u.minutes }

// makeRoom removes what is older than a week, and the oldest counts for which there is no room. Minutes do not outlast their records, and
// recent records stay.
func (s *Stats) makeRoom(ctx context.Context, now time.Time) {
	s.measure(ctx)
	room, uses := s.room, s.uses()
	old := now.Add(-keep).UTC().Truncate(time.Hour)
	full := since(uses, use.ofRecords, room)
	if recent := now.Add(-keepRecent - foldOthers).UTC().Truncate(time.Hour); full.After(recent) {
		full = recent
	}
	end := later(old, full)
	minutesEnd := later(end, since(uses, use.ofMinutes, room))
	if tight := minutesEnd.After(old); tight != s.tight {
		s.tight = tight
		if tight {
			s.log.Warn("call statistics take all the room they may have: the oldest are removed before their time",
				"room", room, "minutes_since", minutesEnd, "hours_since", end)
		}
	}
	if len(uses) > 0 && uses[0].hour.Before(end) {
		s.remove(ctx, state.PrefixStatistics, state.StatisticsHour(end))
	}
	// What is stored is unknown without asking: remove minutes whenever the hour changes, even if only because the clock was set.
	if !minutesEnd.Equal(s.cleared) && s.remove(ctx, state.MinutesRoot, state.MinutesHour(minutesEnd)) {
		s.cleared = minutesEnd
	}
	s.metrics.stored.WithLabelValues("records").Set(float64(stored(uses, use.ofRecords, end)))
	s.metrics.stored.WithLabelValues("minutes").Set(float64(stored(uses, use.ofMinutes, minutesEnd)))
}

// measure sets room by the quota of the first etcd member that answers. Members before 3.6 do not report it, which leaves room as it was.
func (s *Stats) measure(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, etcd.DefaultTimeout)
	defer cancel()
	for _, endpoint := range s.store.Client.Endpoints() {
		member, done := context.WithTimeout(ctx, time.Second)
		status, err := s.store.Client.Status(member, endpoint)
		done()
		if err == nil {
			if status.DbSizeQuota > 0 {
				s.room = min(s.mostKept, status.DbSizeQuota/partOfQuota)
			}
			return
		}
	}
}

// remove deletes the keys in [from, end) and reports whether it succeeded.
func (s *Stats) remove(ctx context.Context, from, end string) bool {
	resp, err := s.store.Do(ctx, clientv3.OpDelete(from, clientv3.WithRange(end)))
	if err != nil {
		s.log.Warn("old call statistics were not removed", "error", err)
		return false
	}
	s.metrics.swept.WithLabelValues("removed").Add(float64(resp.Del().Deleted))
	return true
}

// stored returns how much the hours from a time on take.
func stored(uses []use, size func(use) int64, from time.Time) int64 {
	var sum int64
	for _, u := range uses {
		if !u.hour.Before(from) {
			sum += size(u)
		}
	}
	return sum
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
