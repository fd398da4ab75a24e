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

// MaxPoints is how many points an answer has at most.
const MaxPoints = 50_000

// Query asks for statistics.
type Query struct {
	// Service and Consumer are those asked for, "" for all. Callers that did not say who they are are state.Anonymous.
	Service, Consumer string
	// Resolution is gateway.StatMinute, StatHour or StatDay; "" is StatHour.
	Resolution string
	// From and To are the beginning and the end. To is included as far as the bucket it is in, unless it begins with it. The zero
	// To is now, this bucket included, the zero From an hour, a day or a week earlier, by the resolution.
	From, To time.Time
}

// resolutions are how long a bucket is, and how far back those asked for go when nobody says.
var resolutions = map[string]struct{ bucket, usual time.Duration }{
	gateway.StatMinute: {time.Minute, time.Hour},
	gateway.StatHour:   {time.Hour, 24 * time.Hour},
	gateway.StatDay:    {24 * time.Hour, 7 * 24 * time.Hour},
}

// check fills in defaults, aligns the times and says what is wrong.
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
		q.To = now.UTC().Truncate(r.bucket).Add(r.bucket) // with what is counted at this moment
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

// Find answers a query with what all replicas have written, and what this one has not yet. The error is of the kind errs.Invalid for a
// query that cannot be answered or whose answer would have more than MaxPoints points. Minutes of more than two hours ago are read from
// etcd, with the errors of etcd.Store.Do; nothing else is, so that other queries are answered while it is away.
func (s *Stats) Find(ctx context.Context, q Query) (gateway.Statistics, error) {
	s.collect()
	if err := q.check(s.now()); err != nil {
		return gateway.Statistics{}, err
	}
	a := answer{query: q, bucket: resolutions[q.Resolution].bucket, sums: make(map[pair]map[int64]state.CallBucket)}
	own, snapshot := s.held(&a)
	var elsewhere []string // records whose minutes are
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

// held adds what this process holds to an answer, and returns the keys of that, as the mirror may have it as it was before, and with what
// the mirror has at that moment: what is not held is in it.
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

// answer is what is found for a query.
type answer struct {
	query  Query
	bucket time.Duration
	sums   map[pair]map[int64]state.CallBucket // by the beginning of the bucket
	points int
	full   bool
}

// add adds what a record has that was asked for.
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
