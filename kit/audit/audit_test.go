package audit_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/openmep/mep/kit/audit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// line is what a reader of the stream sees.
type line struct {
	Time                                time.Time
	Action, Result                      string
	Count                               int
	Caller, Client, Via, Source, Target string
	Scope, RequestID, Detail, Listener  string
}

// lines reads a file in which every line must be complete.
func lines(t testing.TB, path string) []line {
	t.Helper()
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	require.NoError(t, err)
	require.True(t, len(data) == 0 || data[len(data)-1] == '\n', "the last line has no end")
	var all []line
	for s := bufio.NewScanner(bytes.NewReader(data)); s.Scan(); {
		var l line
		require.NoError(t, json.Unmarshal(s.Bytes(), &l), "%q", s.Text())
		all = append(all, l)
	}
	return all
}

func targets(all []line) []string {
	var out []string
	for _, l := range all {
		out = append(out, l.Target)
	}
	return out
}

// logged collects what is written to the ordinary log.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (w *logged) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.Write(p)
}

func (w *logged) count(what string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Count(w.buf.String(), what)
}

func (w *logged) logger() *slog.Logger { return slog.New(slog.NewJSONHandler(w, nil)) }

func open(t testing.TB, cfg audit.Config) *audit.Log {
	t.Helper()
	l, err := audit.Open(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l
}

func path(t testing.TB) string { return filepath.Join(t.TempDir(), "audit.log") }

func act(target string) audit.Entry {
	return audit.Entry{Action: "credential.create", Result: audit.Success, Target: target}
}

func TestLine(t *testing.T) {
	for name, c := range map[string]struct {
		entry audit.Entry
		want  string
	}{
		"all members, in order": {
			audit.Entry{
				Action: "token.issue", Result: "success", Caller: "app-1", Client: "AK1", Via: "secret", Source: "192.0.2.1",
				Target: "jti-1", Scope: "mp1", RequestID: "r-1", Listener: "auth", Detail: "issued for an hour",
			},
			`,"action":"token.issue","result":"success","caller":"app-1","client":"AK1","via":"secret","source":"192.0.2.1",` +
				`"target":"jti-1","scope":"mp1","requestId":"r-1","listener":"auth","detail":"issued for an hour"`,
		},
		"empty members are left out": {
			audit.Entry{Action: "a.b", Result: "failed"}, `,"action":"a.b","result":"failed"`,
		},
		"quotes and control characters": {
			audit.Entry{Action: "a.b", Detail: "\"\\\n\r\t\x00\x1b[2J\x7f"},
			`,"action":"a.b","detail":"\"\\\n\r\t\u0000\u001b[2J\u007f"`,
		},
		"what does not print, as far as the end of Unicode": {
			audit.Entry{Action: "a.b", Detail: "é\u0085\u2028\u202e€\U000e0001🙂"},
			`,"action":"a.b","detail":"é\u0085\u2028\u202e€\udb40\udc01🙂"`,
		},
		"not UTF-8": {
			audit.Entry{Action: "a.b", Detail: "a\xff\xe2\x82b\ufffd"}, `,"action":"a.b","detail":"a\ufffd\ufffd\ufffdb` + "\ufffd\"",
		},
		"256 bytes are written": {
			audit.Entry{Action: "a.b", Client: strings.Repeat("x", 256)}, `,"action":"a.b","client":"` + strings.Repeat("x", 256) + `"`,
		},
		"longer is cut": {
			audit.Entry{Action: "a.b", Client: strings.Repeat("x", 257)}, `,"action":"a.b","client":"` + strings.Repeat("x", 256) + `…"`,
		},
		"cut before the rune that does not fit": {
			audit.Entry{Action: "a.b", Client: strings.Repeat("x", 253) + "🙂"},
			`,"action":"a.b","client":"` + strings.Repeat("x", 253) + `…"`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				file := path(t)
				time.Sleep(1500 * time.Millisecond)
				open(t, audit.Config{File: file}).Write(c.entry)
				got, err := os.ReadFile(file)
				require.NoError(t, err)
				require.Equal(t, `{"time":"2000-01-01T00:00:01.500000000Z"`+c.want+"}\n", string(got))
			})
		})
	}
}

func TestWriteIsInTheFileAtOnceAndBusySoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := path(t)
		l := open(t, audit.Config{File: file})
		l.Busy(act("busy"))
		require.Empty(t, lines(t, file))
		time.Sleep(50 * time.Millisecond)
		synctest.Wait()
		require.Equal(t, []string{"busy"}, targets(lines(t, file)))
		l.Busy(act("busy again"))
		l.Write(act("at once"))
		require.Equal(t, []string{"busy", "busy again", "at once"}, targets(lines(t, file)))
		for range 1000 {
			l.Busy(act("many"))
		}
		require.Greater(t, len(lines(t, file)), 100, "a full buffer is written")
		require.NoError(t, l.Close())
		require.Len(t, lines(t, file), 1003)
	})
}

func TestFilesAreForTheirOwner(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	file := filepath.Join(dir, "audit.log")
	l := open(t, audit.Config{File: file, MaxBytes: audit.MinMaxBytes})
	for !exists(file + ".1") {
		l.Write(act("x"))
	}
	for name, mode := range map[string]fs.FileMode{
		dir: 0o700 | fs.ModeDir, filepath.Dir(dir): 0o700 | fs.ModeDir, file: 0o600, file + ".1": 0o600,
	} {
		info, err := os.Stat(name)
		require.NoError(t, err)
		require.Equal(t, mode, info.Mode(), name)
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestSettingsAreChecked(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  audit.Config
		want string
	}{
		"no file":             {audit.Config{}, "no file"},
		"small file":          {audit.Config{File: path(t), MaxBytes: audit.MinMaxBytes - 1}, "too small"},
		"negative number":     {audit.Config{File: path(t), Keep: -1}, "-1 old audit files"},
		"file is a directory": {audit.Config{File: t.TempDir()}, "is a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := audit.Open(c.cfg)
			require.ErrorContains(t, err, c.want)
		})
	}
}

// TestNothingIsLostOrSplit lets many goroutines write through two logs, as two processes would, while both rotate.
func TestNothingIsLostOrSplit(t *testing.T) {
	const writers, each = 8, 1000
	file := path(t)
	cfg := audit.Config{File: file, MaxBytes: audit.MinMaxBytes, Keep: 1000}
	logs := []*audit.Log{open(t, cfg), open(t, cfg)}
	var wg sync.WaitGroup
	for w := range writers {
		l := logs[w%len(logs)]
		wg.Go(func() {
			for i := range each {
				e := act(fmt.Sprint(w, "-", i))
				e.Detail = strings.Repeat("d", i%200)
				if i%4 == 0 {
					l.Write(e)
				} else {
					l.Busy(e)
				}
				if i%250 == 0 {
					_ = l.Reopen()
				}
			}
		})
	}
	wg.Wait()
	for _, l := range logs {
		require.NoError(t, l.Close())
	}
	files, err := filepath.Glob(file + "*")
	require.NoError(t, err)
	require.Greater(t, len(files), 10)
	seen := make(map[string]int)
	for _, f := range files {
		for _, target := range targets(lines(t, f)) {
			seen[target]++
		}
	}
	require.Len(t, seen, writers*each)
	for target, n := range seen {
		require.Equal(t, 1, n, target)
	}
}

func TestFilesAreBounded(t *testing.T) {
	file := path(t)
	for n := 1; n < 6; n++ {
		require.NoError(t, os.WriteFile(fmt.Sprint(file, ".", n), nil, 0o600))
	}
	l := open(t, audit.Config{File: file, MaxBytes: audit.MinMaxBytes, Keep: 3})
	e := act("x")
	e.Detail = strings.Repeat("\x01", 256)
	for i := range 500 {
		e.Target = fmt.Sprint(i)
		l.Busy(e)
	}
	require.NoError(t, l.Close())
	files, err := filepath.Glob(file + "*")
	require.NoError(t, err)
	require.Equal(t, []string{file, file + ".1", file + ".2", file + ".3"}, files, "files from when more were kept go too")
	var kept []string
	for _, f := range []string{file + ".3", file + ".2", file + ".1", file} {
		info, err := os.Stat(f)
		require.NoError(t, err)
		require.LessOrEqual(t, info.Size(), int64(audit.MinMaxBytes))
		kept = append(kept, targets(lines(t, f))...)
	}
	for i, target := range kept {
		require.Equal(t, fmt.Sprint(500-len(kept)+i), target, "the newest are kept, in order")
	}
}

func TestAGapInTheNumbersIsFilled(t *testing.T) {
	file := path(t)
	require.NoError(t, os.WriteFile(file+".1", []byte("first"), 0o600))
	require.NoError(t, os.WriteFile(file+".3", []byte("third"), 0o600))
	l := open(t, audit.Config{File: file, MaxBytes: audit.MinMaxBytes, Keep: 3})
	const enoughForOneRotation = audit.MinMaxBytes / 90
	for range enoughForOneRotation {
		l.Write(act("x"))
	}
	for name, want := range map[string]string{file + ".2": "first", file + ".3": "third"} {
		got, err := os.ReadFile(name)
		require.NoError(t, err)
		require.Equal(t, want, string(got))
	}
	require.NotEmpty(t, lines(t, file+".1"))
}

func TestFileMovedByOthers(t *testing.T) {
	for name, move := range map[string]func(t *testing.T, file string){
		"renamed":           func(t *testing.T, file string) { require.NoError(t, os.Rename(file, file+"-moved")) },
		"removed":           func(t *testing.T, file string) { require.NoError(t, os.Remove(file)) },
		"directory removed": func(t *testing.T, file string) { require.NoError(t, os.RemoveAll(filepath.Dir(file))) },
		"renamed, and made again": func(t *testing.T, file string) {
			require.NoError(t, os.Rename(file, file+"-moved"))
			require.NoError(t, os.WriteFile(file, nil, 0o600))
		},
	} {
		for how, notice := range map[string]func(t *testing.T, l *audit.Log){
			"noticed":  func(*testing.T, *audit.Log) { time.Sleep(time.Second) },
			"reopened": func(t *testing.T, l *audit.Log) { require.NoError(t, l.Reopen()) },
		} {
			t.Run(name+" and "+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					file := filepath.Join(t.TempDir(), "dir", "audit.log")
					l := open(t, audit.Config{File: file, MaxBytes: -1})
					l.Write(act("before"))
					move(t, file)
					notice(t, l)
					l.Write(act("after"))
					require.Equal(t, []string{"after"}, targets(lines(t, file)))
					if moved := lines(t, file+"-moved"); moved != nil {
						require.Equal(t, []string{"before"}, targets(moved))
					}
				})
			})
		}
	}
}

func TestRotationByDefaultOrByOthers(t *testing.T) {
	for name, c := range map[string]struct {
		maxBytes int64
		rotated  bool
	}{
		"16 MiB by default": {0, true},
		"by others":         {-1, false},
	} {
		t.Run(name, func(t *testing.T) {
			file := path(t)
			l := open(t, audit.Config{File: file, MaxBytes: c.maxBytes})
			e := act("x")
			e.Detail = strings.Repeat("\x01", 256)
			for range audit.DefaultMaxBytes / (6 * len(e.Detail)) {
				l.Busy(e)
			}
			require.NoError(t, l.Close())
			require.Equal(t, c.rotated, exists(file+".1"))
			info, err := os.Stat(file)
			require.NoError(t, err)
			require.Equal(t, c.rotated, info.Size() <= audit.DefaultMaxBytes)
		})
	}
}

func TestRotationWaitsForNobody(t *testing.T) {
	file := path(t)
	l := open(t, audit.Config{File: file, MaxBytes: audit.MinMaxBytes})
	other, err := os.Open(file)
	require.NoError(t, err)
	defer other.Close()
	require.NoError(t, syscall.Flock(int(other.Fd()), syscall.LOCK_EX))
	for range 1000 {
		l.Write(act("x"))
	}
	require.NoFileExists(t, file+".1", "another process is rotating")
	require.Len(t, lines(t, file), 1000)
	require.NoError(t, syscall.Flock(int(other.Fd()), syscall.LOCK_UN))
	l.Write(act("last"))
	require.Len(t, lines(t, file+".1"), 1000)
	require.Equal(t, []string{"last"}, targets(lines(t, file)))
}

func TestRotationThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out logged
		file, reg := path(t), prometheus.NewRegistry()
		obstacle := filepath.Join(file+".3", "x")
		require.NoError(t, os.MkdirAll(obstacle, 0o700))
		l := open(t, audit.Config{File: file, MaxBytes: audit.MinMaxBytes, Keep: 2, Log: out.logger(), Registerer: reg})
		for range 1000 {
			l.Write(act("x"))
		}
		require.Len(t, lines(t, file), 1000, "the file grows")
		require.Equal(t, 1, out.count("cannot be rotated"))
		require.Zero(t, out.count("audit entry"))
		require.InDelta(t, 1, metric(t, reg, "mep_audit_failures_total"), 0)

		time.Sleep(time.Second)
		l.Write(act("x"))
		require.InDelta(t, 2, metric(t, reg, "mep_audit_failures_total"), 0, "it is tried again")
		require.Equal(t, 1, out.count("cannot be rotated"), "but said once")

		require.NoError(t, os.RemoveAll(file+".3"))
		time.Sleep(time.Second)
		l.Write(act("last"))
		require.Equal(t, []string{"last"}, targets(lines(t, file)))
		require.Len(t, lines(t, file+".1"), 1001)
		require.Equal(t, 1, out.count("rotated again"))
	})
}

// metric returns the counter that has the values as its labels.
func metric(t *testing.T, reg *prometheus.Registry, name string, values ...string) float64 {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			if f.GetName() == name && slices.Equal(labels, values) {
				return m.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("there is no metric %s of %q", name, values)
	return 0
}

func TestEntriesTheFileDoesNotTakeAreInTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out logged
		file, reg := path(t), prometheus.NewRegistry()
		require.NoError(t, os.Symlink("/dev/full", file))
		l := open(t, audit.Config{File: file, Log: out.logger(), Registerer: reg})
		l.Write(act("first"))
		l.Busy(act("second"))
		l.Busy(act("third"))
		time.Sleep(time.Second)
		synctest.Wait()
		require.InDelta(t, 2, metric(t, reg, "mep_audit_failures_total"), 0, "two flushes failed")
		require.Equal(t, 3, out.count(`"level":"WARN","msg":"audit entry","entry":{"time":"2000-`))
		for _, target := range []string{"first", "second", "third"} {
			require.Equal(t, 1, out.count(`"target":"`+target+`"}`))
		}
		require.Equal(t, 1, out.count("audit file cannot be written"))

		require.NoError(t, os.Remove(file))
		l.Write(act("fourth"))
		l.Write(act("fifth"))
		require.Equal(t, []string{"fourth", "fifth"}, targets(lines(t, file)))
		require.Equal(t, 1, out.count("audit file is written again"))
		require.Zero(t, out.count("fifth"))
		require.InDelta(t, 2, metric(t, reg, "mep_audit_failures_total"), 0)
	})
}

func TestFileThatCannotBeOpenedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out logged
		dir, reg := filepath.Join(t.TempDir(), "dir"), prometheus.NewRegistry()
		file := filepath.Join(dir, "audit.log")
		l := open(t, audit.Config{File: file, Log: out.logger(), Registerer: reg})
		require.NoError(t, os.RemoveAll(dir))
		require.NoError(t, os.WriteFile(dir, nil, 0o600))
		require.Error(t, l.Reopen())
		l.Write(act("first"))
		require.Equal(t, 1, out.count("audit file cannot be written"))
		require.Equal(t, 1, out.count(`"target":"first"`))
		require.InDelta(t, 2, metric(t, reg, "mep_audit_failures_total"), 0)
		require.NoError(t, os.Remove(dir))
		l.Write(act("second"))
		require.Equal(t, []string{"second"}, targets(lines(t, file)))
		require.Equal(t, 1, out.count("audit file is written again"))
	})
}

// TestFullDisk fills a real file system of a few pages, which needs the right to mount one.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("a file system cannot be mounted here: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, 0)) })
	var out logged
	file, ballast := filepath.Join(dir, "audit.log"), filepath.Join(dir, "ballast")
	require.NoError(t, os.WriteFile(ballast, make([]byte, 32<<10), 0o600))
	l := open(t, audit.Config{File: file, Log: out.logger()})
	const n = 1000
	for i := range n {
		l.Busy(act(fmt.Sprint(i)))
	}
	l.Write(act("last before"))
	require.Equal(t, 1, out.count("audit file cannot be written"))
	require.NoError(t, os.Remove(ballast))
	l.Write(act("after"))
	require.NoError(t, l.Close())

	data, err := os.ReadFile(file)
	require.NoError(t, err)
	whole, torn := 0, 0
	for s := range bytes.Lines(data) {
		if json.Valid(s) {
			whole++
		} else {
			torn++
		}
	}
	require.Equal(t, 1, torn, "the line the disk had no room for, and none that came after it")
	require.Equal(t, n+2, whole+out.count("audit entry"), "each entry is in the file or in the log")
	require.Regexp(t, `\n\{"time":.*"target":"after"\}\n$`, string(data))
}

func TestTornLineOfAnEarlierRunIsEnded(t *testing.T) {
	file := path(t)
	require.NoError(t, os.WriteFile(file, []byte("{}\n{\"action\":\"a"), 0o600))
	l := open(t, audit.Config{File: file})
	l.Write(act("x"))
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Regexp(t, `^\{\}\n\{"action":"a\n\{"time":.*"target":"x"\}\n$`, string(data))
}

func TestAfterCloseEntriesGoToTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out logged
		file := path(t)
		l := open(t, audit.Config{File: file, Log: out.logger()})
		require.NoError(t, l.Close())
		require.NoError(t, os.Remove(file))
		l.Write(act("write"))
		l.Busy(act("busy"))
		for range 201 {
			l.Busy(audit.Entry{Action: "access.deny", Result: audit.Denied})
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		require.Equal(t, 1, out.count(`"target":"write"`))
		require.Equal(t, 1, out.count(`"target":"busy"`))
		require.Equal(t, 1, out.count(audit.ActionSuppressed))
		require.ErrorIs(t, l.Reopen(), os.ErrClosed)
		require.NoFileExists(t, file)
	})
}

func TestNilLogDiscards(t *testing.T) {
	var l *audit.Log
	l.Write(act("x"))
	l.Busy(act("x"))
	require.NoError(t, l.Reopen())
	require.NoError(t, l.Close())
}

func BenchmarkBusy(b *testing.B) {
	l := open(b, audit.Config{File: path(b), Registerer: prometheus.NewRegistry()})
	e := audit.Entry{
		Action: "token.issue", Result: audit.Success, Caller: "5abe4782-2c70-4e47-9a4e-0ee3a1a0fd1f", Client: "QVUJMSUMgS0VZLS0tLS0", Via: "signature",
		Source: "192.0.2.17", Target: "0b7f1b5ac3d94e0c8a4de5c1", Scope: "mec:mp1", RequestID: "9a3f0c1d2e4b-1z8k",
	}
	b.ReportAllocs()
	for b.Loop() {
		l.Busy(e)
	}
}
