package telemetry

import (
	"context"
	"math"
	"runtime/debug"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRoomForGarbage(t *testing.T) {
	const mb = 1 << 20
	for _, c := range []struct {
		live, rate, most uint64
		want             int
	}{
		{0, 0, 128 * mb, 100},
		{10 * mb, 0, 128 * mb, 100},
		{10 * mb, 5 * mb, 128 * mb, 100},
		{10 * mb, 20 * mb, 128 * mb, 400},
		{10 * mb, 300 * mb, 128 * mb, 1280},
		{10 * mb, 300 * mb, 32 * mb, 320},
		{10 * mb, 300 * mb, mb, 100},
		{1 * mb, 300 * mb, 128 * mb, 2000},
		{200 * mb, 300 * mb, 128 * mb, 100},
	} {
		require.Equal(t, c.want, percent(c.live, c.rate, c.most), "%+v", c)
	}
}

func TestSuddenGrowthIsBounded(t *testing.T) {
	const mb = 1 << 20
	for _, c := range []struct {
		percent           int
		given             int64
		live, other, most uint64
		want              int64
	}{
		{100, math.MaxInt64, 10 * mb, 20 * mb, 90 * mb, math.MaxInt64},
		{1280, math.MaxInt64, 10 * mb, 20 * mb, 90 * mb, 146 * mb},
		{1280, 64 * mb, 10 * mb, 20 * mb, 90 * mb, 64 * mb},
		{200, math.MaxInt64, 100 * mb, 20 * mb, 90 * mb, 256 * mb},
	} {
		now := allocation{live: c.live, other: c.other}
		require.Equal(t, c.want, ceiling(c.percent, c.given, &now, c.most), "%+v", c)
	}
	a := allocated()
	require.Positive(t, a.other)
	require.Less(t, a.other, uint64(1<<30))
}

func TestThereIsMemory(t *testing.T) {
	require.Greater(t, memory(), uint64(64<<20))
	require.Less(t, memory(), uint64(1<<50))
}

var live, garbage []byte

func TestABusyProgramGetsRoomAndGivesItBack(t *testing.T) {
	t.Setenv("GOGC", "")
	live = make([]byte, 64<<20)
	defer func() { live = nil }()
	before := debug.SetGCPercent(100)
	defer debug.SetGCPercent(before)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- TuneGC(ctx) }()
	percentNow := func() int {
		p := debug.SetGCPercent(100)
		debug.SetGCPercent(p)
		return p
	}
	stop := time.After(20 * time.Second)
	for busy := true; busy; {
		for range 64 {
			garbage = make([]byte, 1<<20)
		}
		select {
		case <-stop:
			t.Fatal("a busy program gets no room")
		case <-time.After(5 * time.Millisecond):
			busy = percentNow() == 100
		}
	}
	garbage = nil
	require.Less(t, debug.SetMemoryLimit(-1), int64(2<<30), "and a limit for what it may become")
	require.Eventually(t, func() bool { return percentNow() == 100 }, time.Minute, 50*time.Millisecond)
	require.EqualValues(t, math.MaxInt64, debug.SetMemoryLimit(-1))
	cancel()
	require.NoError(t, <-done)
}
