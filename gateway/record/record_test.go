package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// written is a record as its readers see it.
type written struct {
	Time      time.Time
	RequestID string
	Lost      int
	Path      string
}

func parse(t testing.TB, text string) []written {
	t.Helper()
	require.True(t, text == "" || strings.HasSuffix(text, "\n"), "the last line has no end")
	var all []written
	for l := range strings.Lines(text) {
		var w written
		require.NoError(t, json.Unmarshal([]byte(l), &w), "%q", l)
		all = append(all, w)
	}
	return all
}

func ids(all []written) []string {
	var out []string
	for _, w := range all {
		out = append(out, w.RequestID)
	}
	return out
}

func read(t testing.TB, path string) []written {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	return parse(t, string(data))
}

// screen is a standard output that a test can read, block or break.
type screen struct {
	mu     sync.Mutex
	buf    bytes.Buffer
	broken error
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil {
		n := max(0, len(p)/2-2)
		s.buf.Write(p[:n])
		return n, s.broken
	}
	return s.buf.Write(p)
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

func (s *screen) breaks(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = err
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func path(t testing.TB) string { return filepath.Join(t.TempDir(), "access.log") }

func metric(t testing.TB, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == name {
			m := f.GetMetric()[0]
			return m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

func TestRecordsAreWrittenSoon(t *testing.T) {
	for name, c := range map[string]Config{
		"to a file":          {File: "file"},
		"to standard output": {Stdout: true},
		"to both":            {File: "file", Stdout: true},
		"to none":            {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				out, reg := &screen{}, prometheus.NewRegistry()
				file := path(t)
				if c.File != "" {
					c.File = file
				}
				l, err := open(c, quiet(), reg, out)
				require.NoError(t, err)
				l.Write(&Entry{RequestID: "1"})
				l.Write(&Entry{RequestID: "2"})
				places := 0
				synctest.Wait()
				if c.File != "" {
					require.Empty(t, read(t, file), "several are written at once")
				}
				time.Sleep(batchDelay)
				synctest.Wait()
				if c.File != "" {
					places++
					require.Equal(t, []string{"1", "2"}, ids(read(t, file)))
				}
				if c.Stdout {
					places++
				}
				require.Equal(t, c.Stdout, out.text() != "")
				l.Write(&Entry{RequestID: "3"})
				require.NoError(t, l.Close())
				if c.File != "" {
					require.Equal(t, []string{"1", "2", "3"}, ids(read(t, file)))
				}
				if c.Stdout {
					require.Equal(t, []string{"1", "2", "3"}, ids(parse(t, out.text())))
				}
				require.InDelta(t, 3*places, metric(t, reg, "mep_gateway_records_total"), 0)
				require.Zero(t, metric(t, reg, "mep_gateway_records_dropped_total"))
				require.Zero(t, metric(t, reg, "mep_gateway_records_pending_bytes"))
				l.Write(&Entry{RequestID: "late"})
				require.InDelta(t, places, metric(t, reg, "mep_gateway_records_dropped_total"), 0)
			})
		})
	}
}

func TestManyAreWrittenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &screen{}
		l, err := open(Config{Stdout: true}, quiet(), nil, out)
		require.NoError(t, err)
		for range 1000 {
			l.Write(&Entry{Path: "/" + strings.Repeat("p", 100)})
		}
		synctest.Wait()
		require.Greater(t, len(out.text()), batchBytes, "without waiting for more")
		require.NoError(t, l.Close())
		require.Len(t, parse(t, out.text()), 1000)
	})
}

func TestWhatDoesNotFitIsCounted(t *testing.T) {
	out, reg := &screen{}, prometheus.NewRegistry()
	l, err := open(Config{Stdout: true}, quiet(), reg, out)
	require.NoError(t, err)
	out.mu.Lock() // block the output
	e := &Entry{Path: "/" + strings.Repeat("p", 1000)}
	const many = 3 * maxPending / 1000
	for range many {
		l.Write(e)
	}
	require.Positive(t, metric(t, reg, "mep_gateway_records_pending_bytes"))
	out.mu.Unlock()
	require.NoError(t, l.Close())
	all, lost, records := parse(t, out.text()), 0, 0
	for _, w := range all {
		if lost += w.Lost; w.Path != "" {
			records++
		}
		require.False(t, w.Time.IsZero() && w.Lost > 0)
	}
	require.Greater(t, lost, many/3)
	require.Equal(t, many, lost+records)
	require.InDelta(t, lost, metric(t, reg, "mep_gateway_records_dropped_total"), 0)
	require.InDelta(t, records, metric(t, reg, "mep_gateway_records_total"), 0)
}

func TestAnOutputThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out, reg, log := &screen{}, prometheus.NewRegistry(), &screen{}
		l, err := open(Config{Stdout: true}, slog.New(slog.NewJSONHandler(log, nil)), reg, out)
		require.NoError(t, err)
		out.breaks(errors.New("gone"))
		for n := range 4 {
			l.Write(&Entry{RequestID: fmt.Sprint(n)})
		}
		time.Sleep(time.Second)
		synctest.Wait()
		out.breaks(nil)
		l.Write(&Entry{RequestID: "after"})
		require.NoError(t, l.Close())
		lines := strings.SplitAfter(out.text(), "\n")
		require.Len(t, lines, 5)
		require.False(t, json.Valid([]byte(lines[1])), "what was torn")
		all := parse(t, lines[0]+lines[2]+lines[3])
		require.Equal(t, []string{"0", "after", ""}, ids(all))
		require.Equal(t, 3, all[2].Lost)
		require.InDelta(t, 3, metric(t, reg, "mep_gateway_records_dropped_total"), 0)
		require.InDelta(t, 2, metric(t, reg, "mep_gateway_records_total"), 0)
		require.Equal(t, 1, strings.Count(log.text(), "access records cannot be written"))
		require.Equal(t, 1, strings.Count(log.text(), "access records are written again"))
		require.Equal(t, 1, strings.Count(log.text(), "access records lost"))
	})
}

func TestAnOutputThatNobodyTakesDoesNotKeepTheGateway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file, stuck := path(t), make(chan struct{})
		l, err := open(Config{File: file, Stdout: true}, quiet(), nil, blocked(stuck))
		require.NoError(t, err)
		l.Write(&Entry{RequestID: "1"})
		time.Sleep(time.Second)
		l.Write(&Entry{RequestID: "2"})
		start := time.Now()
		require.ErrorContains(t, l.Close(), "standard output")
		require.Equal(t, closeTimeout, time.Since(start))
		require.Equal(t, []string{"1", "2"}, ids(read(t, file)), "the file has it all")
		close(stuck)
	})
}

type blocked chan struct{}

func (b blocked) Write(p []byte) (int, error) {
	<-b
	return len(p), nil
}

// TestNothingIsLostOrSplit has many concurrent callers while files fill up, are moved and reopened, and settings change.
func TestNothingIsLostOrSplit(t *testing.T) {
	const callers, each = 8, 2000
	dir, reg := t.TempDir(), prometheus.NewRegistry()
	cfg := Config{File: filepath.Join(dir, "a.log"), MaxBytes: MinMaxBytes, Keep: 1000}
	l, err := open(cfg, quiet(), reg, &screen{})
	require.NoError(t, err)
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for n := range each {
				e := sample()
				e.RequestID = fmt.Sprint(c, "-", n)
				l.Write(e)
				if n%500 == 0 {
					_ = l.Reopen()
				}
			}
		})
	}
	for n := range 20 {
		cfg.File = filepath.Join(dir, string(rune('a'+n%3))+".log")
		cfg.Keep = 1000 + n
		apply, err := l.Prepare(cfg)
		require.NoError(t, err)
		apply()
	}
	wg.Wait()
	require.NoError(t, l.Close())
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	seen := make(map[string]int)
	for _, f := range files {
		for _, w := range read(t, f) {
			seen[w.RequestID]++
		}
	}
	require.Len(t, seen, callers*each)
	for id, n := range seen {
		require.Equal(t, 1, n, id)
	}
	require.Zero(t, metric(t, reg, "mep_gateway_records_dropped_total"))
}

func TestSettingsChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out, file := &screen{}, path(t)
		l, err := open(Config{File: file}, quiet(), nil, out)
		require.NoError(t, err)
		put := func(id string) { l.Write(&Entry{RequestID: id, Query: "city=1"}) }
		change := func(cfg Config) {
			apply, err := l.Prepare(cfg)
			require.NoError(t, err)
			apply()
		}
		put("1")
		change(Config{Stdout: true, MaskQuery: []string{"city"}})
		put("2")
		change(Config{Stdout: true, File: file})
		put("3")
		for name, bad := range map[string]Config{
			"a directory": {File: t.TempDir()}, "a small file": {File: file, MaxBytes: 1}, "a negative number": {Keep: -1},
			"a path": {MaskPaths: []string{"x"}}, "a name": {MaskQuery: []string{""}},
		} {
			_, err := l.Prepare(bad)
			require.Error(t, err, name)
		}
		put("4")
		change(Config{})
		put("nowhere")
		require.NoError(t, l.Close())
		change(Config{Stdout: true})
		put("too late")
		require.ElementsMatch(t, []string{"1", "3", "4"}, ids(read(t, file)), "what was written to the file before ends in its own time")
		require.Equal(t, []string{"2", "3", "4"}, ids(parse(t, out.text())))
		require.Equal(t, 1, strings.Count(out.text(), "city=***"))
	})
}

func TestOpenRefuses(t *testing.T) {
	_, err := Open(Config{File: t.TempDir()}, quiet(), prometheus.NewRegistry())
	require.ErrorContains(t, err, "is a directory")
}

func TestReopen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := path(t)
		l, err := open(Config{File: file}, quiet(), nil, nil)
		require.NoError(t, err)
		l.Write(&Entry{RequestID: "before"})
		require.NoError(t, os.Rename(file, file+"-moved"))
		require.NoError(t, l.Reopen())
		l.Write(&Entry{RequestID: "after"})
		require.NoError(t, l.Close())
		require.NoError(t, l.Reopen())
		require.Equal(t, []string{"before"}, ids(read(t, file+"-moved")))
		require.Equal(t, []string{"after"}, ids(read(t, file)))
	})
}

func TestANilLogDiscards(t *testing.T) {
	var l *Log
	l.Write(sample())
	require.NoError(t, l.Reopen())
	require.NoError(t, l.Close())
}

// BenchmarkWrite writes as fast as it can: records that the disk does not take in time are dropped.
func BenchmarkWrite(b *testing.B) {
	for name, cfg := range map[string]Config{
		"file":    {File: path(b), MaxBytes: 16 << 20, Keep: 1},
		"nowhere": {Stdout: true},
	} {
		b.Run(name, func(b *testing.B) {
			l, err := open(cfg, quiet(), nil, io.Discard)
			require.NoError(b, err)
			b.Cleanup(func() { _ = l.Close() })
			e := sample()
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					l.Write(e)
				}
			})
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	for name, e := range map[string]*Entry{"plain": sample(), "token": {Time: at, Path: "/s/" + token}} {
		b.Run(name, func(b *testing.B) {
			m, err := compile([]string{"/users/*/orders"}, nil)
			require.NoError(b, err)
			var w line
			b.ReportAllocs()
			for b.Loop() {
				w.encode(m, e)
			}
		})
	}
}
