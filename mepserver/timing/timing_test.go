package timing

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/openmep/mep/api/mp1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var silent = slog.New(slog.DiscardHandler)

// newClock returns a clock that calls kernel in place of the real kernel.
func newClock(cfg Config, kernel func() (discipline, error)) *Clock {
	c := New(cfg, silent, prometheus.NewRegistry())
	c.kernel = kernel
	return c
}

func kernelSays(d discipline) func() (discipline, error) {
	return func() (discipline, error) { return d, nil }
}

// running runs the clock until the test ends.
func running(t *testing.T, c *Clock) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
}

func TestTimeIsThatOfTheClockInSecondsAndNanoseconds(t *testing.T) {
	c := New(Config{}, silent, prometheus.NewRegistry())
	before := time.Now()
	now := c.Now()
	got := time.Unix(int64(now.Seconds), int64(now.NanoSeconds))
	require.False(t, got.Before(before.Round(0)))
	require.False(t, got.After(time.Now().Round(0)))
}

func TestSecondsLastFrom1970Until2106(t *testing.T) {
	for name, c := range map[string]struct {
		at                   time.Time
		seconds, nanoSeconds uint32
	}{
		"the epoch":        {time.Unix(0, 0), 0, 0},
		"a nanosecond on":  {time.Unix(0, 1), 0, 1},
		"before the epoch": {time.Unix(-1, 5), 0, 0},
		"2038":             {time.Unix(math.MaxInt32+1, 999_999_999), math.MaxInt32 + 1, 999_999_999},
		"the last second":  {time.Unix(math.MaxUint32, 7), math.MaxUint32, 7},
		"after the last":   {time.Unix(math.MaxUint32+1, 7), math.MaxUint32, 999_999_999},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, mp1.TimeStamp{Seconds: c.seconds, NanoSeconds: c.nanoSeconds}, timeStamp(c.at))
		})
	}
}

func TestCapsAreThoseConfiguredWithTheTimeOfNow(t *testing.T) {
	offered := mp1.TimingCaps{
		TimeStamp:  &mp1.TimeStamp{Seconds: 1},
		NTPServers: []mp1.NTPServer{{NTPServerAddrType: "DNS_NAME", NTPServerAddr: "ntp.example"}},
		PTPMasters: []mp1.PTPMaster{{PTPMasterIPAddress: "192.0.2.1"}},
	}
	c := newClock(Config{Caps: offered}, nil)
	c.now = func() instant { return instant{wall: time.Unix(1000, 5)} }
	caps := c.Caps()
	require.Equal(t, &mp1.TimeStamp{Seconds: 1000, NanoSeconds: 5}, caps.TimeStamp)
	require.Equal(t, offered.NTPServers, caps.NTPServers)
	require.Equal(t, offered.PTPMasters, caps.PTPMasters)
	caps.NTPServers[0].NTPServerAddr = "changed"
	require.Equal(t, "ntp.example", c.Caps().NTPServers[0].NTPServerAddr, "what was handed out is a copy")
	c.Set(Config{})
	require.Empty(t, c.Caps().NTPServers)
	require.Nil(t, c.Caps().PTPMasters)
}

func TestKernelDecidesWithoutAServer(t *testing.T) {
	for name, c := range map[string]struct {
		says   discipline
		fails  error
		reason string
	}{
		"synchronised":            {says: discipline{maxError: 20 * time.Millisecond}},
		"just below the bound":    {says: discipline{maxError: maxKernelError - time.Microsecond}},
		"at the bound":            {says: discipline{maxError: maxKernelError}, reason: "may be off by 2s"},
		"never synchronised":      {says: discipline{failed: true, unsynchronized: true, maxError: 16 * time.Second}, reason: "no time service"},
		"in the state of error":   {says: discipline{failed: true}, reason: "no time service"},
		"with the bit for unsync": {says: discipline{unsynchronized: true}, reason: "no time service"},
		"not to be asked":         {fails: errors.New("adjtimex: operation not permitted"), reason: "no answer yet: adjtimex: operation not permitted"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				clock := newClock(Config{}, func() (discipline, error) { return c.says, c.fails })
				require.Equal(t, mp1.TimeNontraceable, clock.Now().TimeSourceStatus, "nothing is known yet")
				running(t, clock)
				synctest.Wait()
				s := clock.Status()
				require.Equal(t, "kernel", s.Source)
				require.Equal(t, c.reason == "", s.Traceable)
				require.Contains(t, s.Reason, c.reason)
				want := mp1.TimeNontraceable
				if c.reason == "" {
					want = mp1.TimeTraceable
				}
				require.Equal(t, want, clock.Now().TimeSourceStatus)
			})
		})
	}
}

func TestKernelIsAskedAgainEveryFewSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		says, asked := discipline{unsynchronized: true}, 0
		clock := newClock(Config{}, func() (discipline, error) {
			mu.Lock()
			defer mu.Unlock()
			asked++
			return says, nil
		})
		running(t, clock)
		time.Sleep(10*kernelInterval + time.Second)
		require.Equal(t, mp1.TimeNontraceable, clock.Now().TimeSourceStatus)
		mu.Lock()
		require.Equal(t, 11, asked)
		says = discipline{}
		mu.Unlock()
		time.Sleep(kernelInterval)
		require.Equal(t, mp1.TimeTraceable, clock.Now().TimeSourceStatus)
	})
}

func TestKernelOfThisSystemAnswersOrSaysWhyNot(t *testing.T) {
	clock := New(Config{}, silent, prometheus.NewRegistry())
	_, err := readKernel()
	require.Equal(t, err, clock.look(t.Context(), &Config{}))
	s := clock.Status()
	require.Equal(t, err == nil, s.LastError == "")
	require.Equal(t, err == nil, !s.LastAnswer.IsZero())
}

func TestAnswerOfTheServerGoesStaleAfterThreeIntervals(t *testing.T) {
	clock := newClock(Config{NTPServer: "ntp.example", Interval: time.Minute}, nil)
	at := instant{wall: time.Unix(1_000_000, 0), mono: time.Hour}
	later := func(d time.Duration) instant { return instant{wall: at.wall.Add(d), mono: at.mono + d} }
	v := *clock.view.Load()
	v.seen = observation{answered: true, at: at, stratum: 2, failure: "it does not answer any more"}
	clock.view.Store(&v)
	for after, want := range map[time.Duration]mp1.TimeSourceStatus{
		0: mp1.TimeTraceable, 3 * time.Minute: mp1.TimeTraceable, 3*time.Minute + 1: mp1.TimeNontraceable, time.Hour: mp1.TimeNontraceable,
	} {
		clock.now = func() instant { return later(after) }
		require.Equal(t, want, clock.Now().TimeSourceStatus, after)
	}
	clock.now = func() instant { return later(time.Hour) }
	require.Equal(t, "the last answer is older than 3m0s", clock.Status().Reason)
	require.Equal(t, "it does not answer any more", clock.Status().LastError)
}

func TestClockThatWasSetSinceTheAnswerIsNotWhatWasMeasured(t *testing.T) {
	at := instant{wall: time.Unix(1_000_000, 0), mono: time.Hour}
	for name, c := range map[string]struct {
		offset, jump time.Duration
		traceable    bool
	}{
		"left alone":                       {traceable: true},
		"set forward":                      {jump: 2 * time.Second},
		"set back":                         {jump: -2 * time.Second},
		"slewed":                           {jump: 100 * time.Millisecond, traceable: true},
		"wrong, then set right":            {offset: time.Hour, jump: time.Hour, traceable: true},
		"wrong the other way, and set so":  {offset: -time.Hour, jump: time.Hour},
		"nearly wrong, then a little more": {offset: 900 * time.Millisecond, jump: -200 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			clock := newClock(Config{NTPServer: "ntp.example"}, nil)
			v := *clock.view.Load()
			v.seen = observation{answered: true, at: at, offset: c.offset}
			clock.view.Store(&v)
			clock.now = func() instant {
				return instant{wall: at.wall.Add(time.Minute + c.jump), mono: at.mono + time.Minute}
			}
			require.Equal(t, c.traceable, clock.Status().Traceable, clock.Status().Reason)
		})
	}
}

func TestPauseGrowsWhileTheServerFails(t *testing.T) {
	cfg := Config{NTPServer: "ntp.example"}.withDefaults()
	for failures, want := range map[int]time.Duration{
		1: 2 * time.Second, 2: 4 * time.Second, 5: 32 * time.Second, 6: 64 * time.Second, 7: 64 * time.Second, 1000: 64 * time.Second,
	} {
		require.Equal(t, want, pause(&cfg, errors.New("silent"), failures), failures)
	}
	require.Equal(t, defaultInterval, pause(&cfg, nil, 0))
	short := Config{NTPServer: "ntp.example", Interval: time.Second}
	require.Equal(t, time.Second, pause(&short, errors.New("silent"), 1), "never longer than the interval")
	require.Equal(t, kernelInterval, pause(&Config{}, errors.New("no"), 9))
}

func TestChangesAreLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var log strings.Builder
		says := discipline{unsynchronized: true}
		clock := New(Config{}, slog.New(slog.NewTextHandler(&log, nil)), prometheus.NewRegistry())
		clock.kernel = func() (discipline, error) {
			mu.Lock()
			defer mu.Unlock()
			return says, nil
		}
		running(t, clock)
		for _, d := range []discipline{says, {}, {unsynchronized: true}} {
			mu.Lock()
			says = d
			mu.Unlock()
			time.Sleep(time.Minute)
		}
		synctest.Wait()
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		require.Len(t, lines, 3)
		require.Contains(t, lines[0], `level=INFO msg="the clock is not traceable`)
		require.Contains(t, lines[1], `level=INFO msg="the clock is traceable`)
		require.Contains(t, lines[2], `level=WARN msg="the clock is not traceable`)
	})
}

func TestNewSettingsTakeEffectAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clock := newClock(Config{}, kernelSays(discipline{}))
		running(t, clock)
		synctest.Wait()
		require.True(t, clock.Status().Traceable)
		clock.Set(Config{NTPServer: "[unusable", Caps: mp1.TimingCaps{}})
		require.False(t, clock.Status().Traceable, "what the kernel said says nothing of the server")
		synctest.Wait()
		s := clock.Status()
		require.Equal(t, "[unusable", s.Source)
		require.NotEmpty(t, s.LastError)
		clock.Set(Config{})
		synctest.Wait()
		require.True(t, clock.Status().Traceable)
		clock.Set(Config{Caps: mp1.TimingCaps{PTPMasters: []mp1.PTPMaster{{}}}})
		require.True(t, clock.Status().Traceable, "other offers leave what was found out alone")
	})
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	clock := New(Config{}, silent, reg)
	values := gather(t, reg)
	require.Zero(t, values["mep_timing_traceable"])
	require.True(t, math.IsNaN(values["mep_timing_offset_seconds"]))
	clock.kernel = kernelSays(discipline{offset: -1500 * time.Millisecond})
	require.NoError(t, clock.look(t.Context(), &Config{}))
	require.Equal(t, map[string]float64{"mep_timing_traceable": 1, "mep_timing_offset_seconds": -1.5}, gather(t, reg))
}

func gather(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	values := make(map[string]float64)
	for _, f := range families {
		values[f.GetName()] = f.GetMetric()[0].GetGauge().GetValue()
	}
	return values
}
