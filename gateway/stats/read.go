package stats

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/watched"
)

// MaxPoints is the maximum number of points in an answer.
const MaxPoints = 50_000

// Query asks for statistics.
type Query struct {
	// Service and Consumer select the series; "" selects all. Unauthenticated callers are state.Anonymous.
	Service, Consumer string
	// Resolution is gateway.StatMinute, StatHour or StatDay; "" means StatHour.
	Resolution string
	// From and To are the start and the end. The bucket that contains To is included, unless it begins at To. A zero To means now,
	// including the current bucket; a zero From means an hour, a day or a week earlier, depending on the resolution.
	From, To time.Time
}

// resolutions maps each resolution to the length of its buckets and the default time range.
var resolutions = map[string]struct{ bucket, usual time.Duration }{
	gateway.StatMinute: {time.Minute, time.Hour},
	gateway.StatHour:   {time.Hour, 24 * time.Hour},
	gateway.StatDay:    {24 * time.Hour, 7 * 24 * time.Hour},
}

// check fills in defaults, aligns the times and reports what is wrong.
func (q *Query) check(now time.Time) error {
	if q.Resolution == "" {
		q.Resolution = gateway.StatHour
	}
	r, ok := resolutions[q.Resolution]
	if !ok {
		return errs.New(errs.Invalid, "the resolution must be %s, %s or %s", gateway.StatMinute, gateway.StatHour, gateway.StatDay)
	}
	end := q.To
	if end.IsZero() {
		end = now
		q.To = now.UTC().Truncate(r.bucket).Add(r.bucket) // including the current bucket
	}
	if q.From.IsZero() {
		q.From = end.Add(-r.usual)
	}
	if !q.From.Before(q.To) {
		return errs.New(errs.Invalid, "from must be before to")
	}
	q.From = q.From.UTC().Truncate(r.bucket)
	if end = q.To.UTC().Truncate(r.bucket); end.Before(q.To) {
		end = end.Add(r.bucket)
	}
	q.To = end
	const slack = time.Hour
	switch {
	case q.From.Before(now.Add(-keep - slack)):
		return errs.New(errs.Invalid, "from must be less than 8 days ago: older statistics are not kept")
	case q.To.After(now.Add(keep)):
		return errs.New(errs.Invalid, "to is too far in the future")
	}
	return nil
}

// Find answers a query with what all replicas have written and what this one has not written yet. The error is of the kind errs.Invalid
// if the query cannot be answered or its answer would have more than MaxPoints points. Minutes older than two hours are read from etcd,
// with the errors of etcd.Store.Do; nothing else is, so other queries are answered even while etcd is unavailable.
func (s *Stats) Find(ctx context.Context, q Query) (gateway.Statistics, error) {
	s.collect()
	if err := q.check(s.now()); err != nil {
		return gateway.Statistics{}, err
	}
	a := answer{query: q, bucket: resolutions[q.Resolution].bucket, sums: make(map[pair]map[int64]state.CallBucket)}
	own, snapshot := s.held(&a)
	var elsewhere []string // keys of records whose minutes are stored separately
	first, end := state.StatisticsHour(q.From.Truncate(time.Hour)), state.StatisticsHour(q.To.Add(time.Hour-1).Truncate(time.Hour))
	for item := range snapshot.From(first) {
		if item.Key >= end || a.full {
			break
		}
		if _, mine := own[item.Key]; mine {
			continue
		}
		if item.Value.Folded && a.bucket < time.Hour {
			if item.Value.Minutes > 0 {
				elsewhere = append(elsewhere, item.Key)
			}
			continue
		}
		hour, _, err := state.SplitStatisticsKey(item.Key)
		var stats state.CallStatistics
		if err == nil {
			stats, err = item.Value.Unpack()
		}
		if err != nil {
			s.log.Warn("record of call statistics left out", "key", item.Key, "revision", item.ModRevision, "error", err)
			continue
		}
		a.add(hour, stats.Pairs)
	}
	if err := s.addMinutes(ctx, &a, elsewhere); err != nil {
		return gateway.Statistics{}, err
	}
	return a.statistics()
}

// held adds what this process holds to an answer. It returns the keys of those records, whose copies in the mirror may be outdated, and a
// snapshot of the mirror taken at the same moment: what is not held is in it.
func (s *Stats) held(a *answer) (map[string]struct{}, *watched.Snapshot[state.PackedStatistics]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := make(map[string]struct{})
	for start, b := range s.blocks {
		for _, p := range b.parts {
			own[p.key] = struct{}{}
			a.add(time.Unix(start, 0).UTC().Truncate(time.Hour), p.pairs)
		}
	}
	return own, s.records.Snapshot()
}

// answer collects the result of a query.
type answer struct {
	query  Query
	bucket time.Duration
	sums   map[pair]map[int64]state.CallBucket // by the start of the bucket
	points int
	full   bool
}

// add adds the counts of a record that match the query.
func (a *answer) add(hour time.Time, pairs []state.CallPair) {
	for _, p := range pairs {
		if a.query.Service != "" && p.Service != a.query.Service || a.query.Consumer != "" && p.Consumer != a.query.Consumer {
			continue
		}
		by := pair{p.Service, p.Consumer}
		for _, b := range p.Buckets {
			at := hour.Add(time.Duration(b.Minute) * time.Minute).Truncate(a.bucket)
			if at.Before(a.query.From) || !at.Before(a.query.To) {
				continue
			}
			points := a.sums[by]
			if points == nil {
				points = make(map[int64]state.CallBucket)
				a.sums[by] = points
			}
			sum, known := points[at.Unix()]
			if !known {
				if a.points++; a.points > MaxPoints {
					a.full = true
					return
				}
			}
			sum.Add(b)
			points[at.Unix()] = sum
		}
	}
}

// statistics renders the answer.
func (a *answer) statistics() (gateway.Statistics, error) {
	if a.full {
		return gateway.Statistics{}, errs.New(errs.Invalid,
			"the answer would have more than %d points: ask for one service or consumer, a shorter time, or longer buckets", MaxPoints)
	}
	out := gateway.Statistics{Resolution: a.query.Resolution, From: a.query.From, To: a.query.To, Series: []gateway.Series{}}
	for by, points := range a.sums {
		series := gateway.Series{Service: by.service, Consumer: by.consumer, Points: make([]gateway.Point, 0, len(points))}
		for at, b := range points {
			series.Points = append(series.Points, gateway.Point{
				Time: time.Unix(at, 0).UTC(), Calls: b.Calls, Refused: b.Refused, Failed: b.Failed, Millis: b.Micros / 1000, Bytes: b.Bytes,
			})
		}
		slices.SortFunc(series.Points, func(x, y gateway.Point) int { return x.Time.Compare(y.Time) })
		out.Series = append(out.Series, series)
	}
	slices.SortFunc(out.Series, func(x, y gateway.Series) int {
		return cmp.Or(cmp.Compare(x.Service, y.Service), cmp.Compare(x.Consumer, y.Consumer))
	})
	return out, nil
}
