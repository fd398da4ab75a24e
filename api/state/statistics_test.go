package state_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/state"
)

func calls() state.CallStatistics {
	return state.CallStatistics{Pairs: []state.CallPair{
		{Service: "video", Consumer: "app-1", Buckets: []state.CallBucket{
			{Minute: 0, Calls: 1}, {Minute: 7, Calls: 5, Refused: 1, Failed: 2, Micros: 12345, Bytes: 1 << 40}, {Minute: 59, Calls: math.MaxInt64},
		}},
		{Service: "näme/with %", Consumer: state.Anonymous, Buckets: []state.CallBucket{}},
	}}
}

func TestCallStatisticsSurviveTheStore(t *testing.T) {
	for name, s := range map[string]state.CallStatistics{"some": calls(), "none": {Pairs: []state.CallPair{}}, "folded": func() state.CallStatistics {
		s := calls()
		return s.Fold()
	}()} {
		t.Run(name, func(t *testing.T) {
			packed, err := s.Pack()
			require.NoError(t, err)
			value, err := state.Encode(packed)
			require.NoError(t, err)
			read, err := state.Decode[state.PackedStatistics]([]byte(value))
			require.NoError(t, err)
			got, err := read.Unpack()
			require.NoError(t, err)
			require.Equal(t, s, got)
		})
	}
}

func TestFoldedStatistics(t *testing.T) {
	s := calls()
	s.Pairs[0].Buckets[2].Calls = 4
	require.Equal(t, state.CallStatistics{Folded: true, Pairs: []state.CallPair{
		{Service: "video", Consumer: "app-1", Buckets: []state.CallBucket{{Calls: 10, Refused: 1, Failed: 2, Micros: 12345, Bytes: 1 << 40}}},
		{Service: "näme/with %", Consumer: state.Anonymous, Buckets: []state.CallBucket{{}}},
	}}, s.Fold())
	once := s.Fold()
	require.Equal(t, once, once.Fold(), "once more makes no difference")
	s = calls()
	require.Equal(t, int64(math.MaxInt64), s.Fold().Pairs[0].Buckets[0].Calls, "what is too large stays the largest number")
}

func TestMergedStatistics(t *testing.T) {
	s, before := calls(), calls()
	s.Pairs[0].Buckets[2].Calls = 4
	others := state.CallStatistics{Pairs: []state.CallPair{
		{Service: "audio", Consumer: "app-1", Buckets: []state.CallBucket{{Minute: 1, Calls: 1}}},
		{Service: "video", Consumer: "app-1", Buckets: []state.CallBucket{{Minute: 7, Calls: 2, Bytes: 1}, {Minute: 8, Calls: 3}}},
	}}
	merged := s
	merged.Merge(others)
	require.Equal(t, []state.CallPair{
		{Service: "video", Consumer: "app-1", Buckets: []state.CallBucket{
			{Minute: 0, Calls: 1}, {Minute: 7, Calls: 7, Refused: 1, Failed: 2, Micros: 12345, Bytes: 1<<40 + 1}, {Minute: 8, Calls: 3}, {Minute: 59, Calls: 4},
		}},
		before.Pairs[1],
		others.Pairs[0],
	}, merged.Pairs)
	before.Pairs[0].Buckets[2].Calls = 4
	require.Equal(t, before, s, "what was merged stays")
}

func TestStatisticsThatAreNone(t *testing.T) {
	for name, s := range map[string]state.CallPair{
		"a negative number":    {Buckets: []state.CallBucket{{Calls: -1}}},
		"minutes out of order": {Buckets: []state.CallBucket{{Minute: 2}, {Minute: 1}}},
		"no such minute":       {Buckets: []state.CallBucket{{Minute: 60}}},
		"a name too long":      {Consumer: strings.Repeat("x", 1025)},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := (&state.CallStatistics{Pairs: []state.CallPair{s}}).Pack()
			require.Error(t, err)
		})
	}
}

func TestStatisticsKeys(t *testing.T) {
	hour := time.Date(2026, 11, 23, 4, 0, 0, 0, time.UTC)
	key := state.StatisticsKey(hour.In(time.FixedZone("", 3600)), "host/1%-a", 12)
	require.Equal(t, state.PrefixStatistics+"2026112304/host%2F1%25-a/12", key)
	at, replica, err := state.SplitStatisticsKey(key)
	require.NoError(t, err)
	require.Equal(t, hour, at)
	require.Equal(t, "host/1%-a", replica)
	require.Less(t, key, state.StatisticsHour(hour.Add(time.Hour)), "keys sort by time")
	for _, bad := range []string{
		"", "2026112304", "2026112304/a", "2026112304//1", "2026112304/a/", "2026112304/a/1/2", "20261123/a/1", "2026112399/a/1", "x/a/1",
	} {
		_, _, err := state.SplitStatisticsKey(state.PrefixStatistics + bad)
		require.Error(t, err, bad)
	}
	_, _, err = state.SplitStatisticsKey(state.PrefixServices + "2026112304/a/1")
	require.Error(t, err)
}

// FuzzUnpack checks that a damaged record is an error, and that others are packed again unchanged.
func FuzzUnpack(f *testing.F) {
	s := calls()
	packed, err := s.Pack()
	require.NoError(f, err)
	f.Add(packed.Body, false)
	folded := s.Fold()
	packed, err = folded.Pack()
	require.NoError(f, err)
	f.Add(packed.Body, true)
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, body []byte, flag bool) {
		got, err := state.PackedStatistics{Version: state.Current(), Folded: flag, Body: body}.Unpack()
		if err != nil {
			return
		}
		again, err := got.Pack()
		require.NoError(t, err)
		back, err := again.Unpack()
		require.NoError(t, err)
		require.Equal(t, got, back)
		folded := got.Fold()
		_, err = folded.Pack()
		require.NoError(t, err)
	})
}

func TestARecordThatUnpacksToFarTooMuch(t *testing.T) {
	s := state.CallStatistics{}
	for range 10_000 {
		s.Pairs = append(s.Pairs, state.CallPair{Service: strings.Repeat("x", 1000)})
	}
	packed, err := s.Pack()
	require.NoError(t, err)
	require.Less(t, len(packed.Body), 256<<10)
	_, err = packed.Unpack()
	require.ErrorContains(t, err, "more than")
}
