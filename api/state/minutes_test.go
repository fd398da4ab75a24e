package state_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/state"
)

func TestMinutesSurviveTheStore(t *testing.T) {
	for name, x := range map[string]struct{ in, want []state.CallBucket }{
		"none": {[]state.CallBucket{}, []state.CallBucket{}},
		"few": {
			[]state.CallBucket{{Minute: 3, Calls: 2, Refused: 1, Failed: 1, Micros: 5000, Bytes: 7}, {Minute: 59, Calls: 1}},
			[]state.CallBucket{{Minute: 3, Calls: 2, Refused: 1, Failed: 1, Micros: 5000, Bytes: 7}, {Minute: 59, Calls: 1}},
		},
		"durations below a millisecond": {
			[]state.CallBucket{{Minute: 0, Calls: 1, Micros: 600}, {Minute: 1, Calls: 1, Micros: 600}, {Minute: 2, Calls: 1, Micros: 2900}},
			[]state.CallBucket{{Minute: 0, Calls: 1}, {Minute: 1, Calls: 1, Micros: 1000}, {Minute: 2, Calls: 1, Micros: 3000}},
		},
		"the largest numbers": {
			[]state.CallBucket{
				{Minute: 0, Calls: math.MaxInt64, Refused: math.MaxInt64, Failed: math.MaxInt64, Micros: math.MaxInt64, Bytes: math.MaxInt64},
				{Minute: 1, Calls: 1, Micros: math.MaxInt64, Bytes: math.MaxInt64},
				{Minute: 2, Calls: math.MaxInt64, Bytes: 0},
			},
			[]state.CallBucket{
				{Minute: 0, Calls: math.MaxInt64, Refused: math.MaxInt64, Failed: math.MaxInt64, Micros: math.MaxInt64 / 1000 * 1000, Bytes: math.MaxInt64},
				{Minute: 1, Calls: 1, Micros: math.MaxInt64 / 1000 * 1000, Bytes: math.MaxInt64},
				{Minute: 2, Calls: math.MaxInt64, Bytes: 0},
			},
		},
		"no calls, as in no record": {[]state.CallBucket{{Minute: 1, Bytes: 5}, {Minute: 1, Bytes: 9}}, []state.CallBucket{{Minute: 1, Bytes: 5}, {Minute: 1, Bytes: 9}}},
	} {
		t.Run(name, func(t *testing.T) {
			pairs := func(b []state.CallBucket) []state.CallPair {
				return []state.CallPair{{Service: "a", Consumer: "b", Buckets: b}, {Service: "b", Consumer: "", Buckets: b}, {Service: "", Consumer: "a", Buckets: b}}
			}
			value, err := (&state.CallStatistics{Pairs: pairs(x.in)}).PackMinutes()
			require.NoError(t, err)
			got, err := state.UnpackMinutes(value)
			require.NoError(t, err)
			require.Equal(t, state.CallStatistics{Pairs: pairs(x.want)}, got)
		})
	}
}

func TestDurationsKeepTheirSum(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	p := state.CallPair{}
	for minute := range 60 {
		p.Buckets = append(p.Buckets, state.CallBucket{Minute: minute, Calls: 1, Micros: random.Int64N(5000)})
	}
	value, err := (&state.CallStatistics{Pairs: []state.CallPair{p}}).PackMinutes()
	require.NoError(t, err)
	got, err := state.UnpackMinutes(value)
	require.NoError(t, err)
	var want, sum int64
	for i, b := range got.Pairs[0].Buckets {
		want += p.Buckets[i].Micros
		sum += b.Micros
		require.LessOrEqual(t, sum, want)
		require.Less(t, want-sum, int64(1000))
	}
}

// busy returns the calls of ten minutes, in which some of 20 consumers call all of 50 services.
func busy() state.CallStatistics {
	random := rand.New(rand.NewPCG(1, 2))
	s := state.CallStatistics{}
	for i := range 128 {
		p := state.CallPair{Service: fmt.Sprint("service-", i%50), Consumer: fmt.Sprintf("f81d4fae-7dec-41d0-a765-00a0c91e6b%02x", i%20)}
		for minute := range 10 {
			calls := 1 + random.Int64N(60)
			p.Buckets = append(p.Buckets, state.CallBucket{
				Minute: minute, Calls: calls, Refused: random.Int64N(50) / 49,
				Micros: calls * (8000 + random.Int64N(2000)), Bytes: calls * (2000 + random.Int64N(500)),
			})
		}
		s.Pairs = append(s.Pairs, p)
	}
	return s
}

func TestMinutesTakeLessThanHalfOfTheRecord(t *testing.T) {
	s := busy()
	packed, err := s.Pack()
	require.NoError(t, err)
	record, err := state.Encode(packed)
	require.NoError(t, err)
	value, err := s.PackMinutes()
	require.NoError(t, err)
	require.Less(t, len(value), len(record)/2)
	t.Logf("%d bytes, the record %d", len(value), len(record))
}

func TestMinutesThatAreNone(t *testing.T) {
	for name, s := range map[string]state.CallPair{
		"a negative number":    {Buckets: []state.CallBucket{{Bytes: -1}}},
		"minutes out of order": {Buckets: []state.CallBucket{{Minute: 2}, {Minute: 1}}},
		"no such minute":       {Buckets: []state.CallBucket{{Minute: 60}}},
		"a minute before":      {Buckets: []state.CallBucket{{Minute: -1}}},
		"a name too long":      {Consumer: strings.Repeat("x", 1025)},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := (&state.CallStatistics{Pairs: []state.CallPair{s}}).PackMinutes()
			require.Error(t, err)
		})
	}
	for name, value := range map[string][]byte{"nothing": {}, "JSON": []byte(`{"v":1}`), "another version": {2, 3, 0}, "not deflated": {1, 255}} {
		t.Run(name, func(t *testing.T) {
			_, err := state.UnpackMinutes(value)
			require.Error(t, err)
		})
	}
}

func TestMinutesStandWhereTheirRecordDoes(t *testing.T) {
	hour := time.Date(2026, 11, 23, 4, 0, 0, 0, time.UTC)
	key := state.MinutesKey(state.StatisticsKey(hour, "host/1", 12))
	require.Equal(t, state.MinutesRoot+"2026112304/host%2F1/12", key)
	require.True(t, strings.HasPrefix(key, state.MinutesHour(hour)))
	require.False(t, strings.HasPrefix(key, state.Root), "what is below it every program copies")
}

// FuzzUnpackMinutes checks that damaged minutes are an error, and that others are packed again unchanged.
func FuzzUnpackMinutes(f *testing.F) {
	s := calls()
	for _, s := range []state.CallStatistics{s, s.Fold(), busy(), {}} {
		value, err := s.PackMinutes()
		require.NoError(f, err)
		f.Add(value)
	}
	f.Add([]byte{})
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, value []byte) {
		got, err := state.UnpackMinutes(value)
		if err != nil {
			return
		}
		again, err := got.PackMinutes()
		require.NoError(t, err)
		back, err := state.UnpackMinutes(again)
		require.NoError(t, err)
		require.Equal(t, got, back)
	})
}

// FuzzMinutesOfNumbers checks that all numbers survive packing and unpacking.
func FuzzMinutesOfNumbers(f *testing.F) {
	f.Add(int64(1), int64(2), int64(3), int64(4), int64(5), int64(6))
	f.Add(int64(math.MaxInt64), int64(math.MaxInt64), int64(0), int64(1), int64(math.MaxInt64), int64(2))
	f.Fuzz(func(t *testing.T, a, b, c, d, e, g int64) {
		n := func(v int64) int64 { return v & math.MaxInt64 }
		millis := func(v int64) int64 { return n(v) / 1000 * 1000 }
		s := state.CallStatistics{Pairs: []state.CallPair{{Service: "s", Buckets: []state.CallBucket{
			{Minute: 1, Calls: n(a), Micros: millis(b), Bytes: n(c)}, {Minute: 2, Calls: n(d), Micros: millis(e), Bytes: n(g)},
			{Minute: 3, Calls: n(c), Micros: millis(a), Bytes: n(b)}, {Minute: 9, Calls: n(g), Micros: millis(d), Bytes: n(e)},
		}}}}
		value, err := s.PackMinutes()
		require.NoError(t, err)
		got, err := state.UnpackMinutes(value)
		require.NoError(t, err)
		require.Equal(t, s, got)
	})
}
