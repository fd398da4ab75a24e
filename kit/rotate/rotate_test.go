package rotate_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/kit/rotate"
)

const full = 1000 // bytes

// numbered returns a line of 20 bytes.
func numbered(n int) string { return fmt.Sprintf("%019d\n", n) }

func path(t testing.TB) string { return filepath.Join(t.TempDir(), "lines.log") }

func write(t testing.TB, f *rotate.File, lines ...string) {
	t.Helper()
	for _, l := range lines {
		n, err := f.Write([]byte(l))
		require.NoError(t, err)
		require.Equal(t, len(l), n)
	}
}

func read(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(data)
}

func files(t testing.TB, path string) []string {
	t.Helper()
	list, err := filepath.Glob(path + "*")
	require.NoError(t, err)
	for i := range list {
		list[i] = strings.TrimPrefix(list[i], path)
	}
	return list
}

func TestAFullFileMakesWay(t *testing.T) {
	file := path(t)
	f := rotate.New(rotate.Config{Path: file, MaxBytes: full, Keep: 2})
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	for n := range 300 {
		write(t, f, numbered(n))
	}
	require.Equal(t, []string{"", ".1", ".2"}, files(t, file))
	var all strings.Builder
	for _, name := range []string{file + ".2", file + ".1", file} {
		text := read(t, name)
		require.LessOrEqual(t, len(text), full)
		all.WriteString(text)
	}
	kept := strings.Count(all.String(), "\n")
	require.Greater(t, kept, 2*full/20-10)
	var want strings.Builder
	for n := 300 - kept; n < 300; n++ {
		want.WriteString(numbered(n))
	}
	require.Equal(t, want.String(), all.String(), "the newest lines are kept, in order")
}

func TestLinesOfOneWriteGoToSeveralFiles(t *testing.T) {
	file := path(t)
	f := rotate.New(rotate.Config{Path: file, MaxBytes: full, Keep: 100})
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	var lines, got strings.Builder
	for n := range 500 {
		lines.WriteString(numbered(n))
	}
	write(t, f, lines.String())
	for n := len(files(t, file)) - 1; n > 0; n-- {
		text := read(t, fmt.Sprint(file, ".", n))
		require.LessOrEqual(t, len(text), full)
		got.WriteString(text)
	}
	got.WriteString(read(t, file))
	require.Equal(t, lines.String(), got.String())
}

func TestFilesBeyondThoseKeptGoAndGapsAreFilled(t *testing.T) {
	for name, c := range map[string]struct {
		there []string
		keep  int
		want  map[string]string
	}{
		"more were kept once": {[]string{".1", ".2", ".3", ".4"}, 2, map[string]string{".2": ".1"}},
		"a gap":               {[]string{".1", ".3"}, 3, map[string]string{".2": ".1", ".3": ".3"}},
		"all are there":       {[]string{".1", ".2", ".3"}, 3, map[string]string{".2": ".1", ".3": ".2"}},
	} {
		t.Run(name, func(t *testing.T) {
			file := path(t)
			for _, n := range c.there {
				require.NoError(t, os.WriteFile(file+n, []byte(n), 0o600))
			}
			f := rotate.New(rotate.Config{Path: file, MaxBytes: full, Keep: c.keep})
			t.Cleanup(func() { require.NoError(t, f.Close()) })
			for n := range full/20 + 1 {
				write(t, f, numbered(n))
			}
			got := make(map[string]string)
			for _, n := range files(t, file) {
				if n != "" && n != ".1" {
					got[n] = read(t, file+n)
				}
			}
			require.Equal(t, c.want, got)
			require.Contains(t, read(t, file+".1"), numbered(0))
		})
	}
}

func TestFilesAreForTheirOwner(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	f := rotate.New(rotate.Config{Path: filepath.Join(dir, "x")})
	require.NoError(t, f.Open())
	require.NoError(t, f.Close())
	for name, mode := range map[string]fs.FileMode{dir: 0o700 | fs.ModeDir, filepath.Dir(dir): 0o700 | fs.ModeDir, filepath.Join(dir, "x"): 0o600} {
		info, err := os.Stat(name)
		require.NoError(t, err)
		require.Equal(t, mode, info.Mode(), name)
	}
}

func TestWhatIsNoFileIsNotRotated(t *testing.T) {
	for name, c := range map[string]struct {
		maxBytes int64
		link     bool
	}{
		"a link":            {full, true},
		"no size was given": {0, false},
	} {
		t.Run(name, func(t *testing.T) {
			file := path(t)
			if c.link {
				require.NoError(t, os.Symlink(filepath.Join(filepath.Dir(file), "target"), file))
			}
			f := rotate.New(rotate.Config{Path: file, MaxBytes: c.maxBytes, Keep: 1})
			t.Cleanup(func() { require.NoError(t, f.Close()) })
			for n := range 2 * full / 20 {
				write(t, f, numbered(n))
			}
			require.Len(t, read(t, file), 2*full)
			require.Equal(t, []string{""}, files(t, file))
		})
	}
}

func TestALastLineWithoutItsEndGetsIt(t *testing.T) {
	file := path(t)
	require.NoError(t, os.WriteFile(file, []byte("whole\ntorn"), 0o600))
	f := rotate.New(rotate.Config{Path: file, MaxBytes: full, Keep: 1})
	write(t, f, "next\n")
	require.NoError(t, f.Close())
	write(t, f, "after\n")
	require.NoError(t, f.Close())
	require.Equal(t, "whole\ntorn\nnext\nafter\n", read(t, file))
}

func TestFileMovedByOthers(t *testing.T) {
	for name, move := range map[string]func(t *testing.T, file string){
		"renamed":           func(t *testing.T, file string) { require.NoError(t, os.Rename(file, file+"-moved")) },
		"removed":           func(t *testing.T, file string) { require.NoError(t, os.Remove(file)) },
		"directory removed": func(t *testing.T, file string) { require.NoError(t, os.RemoveAll(filepath.Dir(file))) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				file := filepath.Join(t.TempDir(), "dir", "x")
				f := rotate.New(rotate.Config{Path: file})
				write(t, f, "before\n")
				move(t, file)
				time.Sleep(time.Second)
				write(t, f, "after\n")
				require.Equal(t, "after\n", read(t, file))
				require.NoError(t, f.Close())
			})
		})
	}
}

// TestProcessesShareAFile lets several files with one path rotate it.
func TestProcessesShareAFile(t *testing.T) {
	const processes, each = 4, 500
	file := path(t)
	var wg sync.WaitGroup
	for p := range processes {
		f := rotate.New(rotate.Config{Path: file, MaxBytes: full, Keep: 10_000})
		wg.Go(func() {
			for n := range each {
				line := numbered(p*each + n)
				if done, err := f.Write([]byte(line)); err != nil || done != len(line) {
					t.Errorf("wrote %d bytes: %v", done, err)
				}
			}
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	seen := make(map[string]int)
	for _, name := range files(t, file) {
		for line := range strings.Lines(read(t, file+name)) {
			seen[line]++
		}
	}
	require.Len(t, seen, processes*each)
	for n := range processes * each {
		require.Equal(t, 1, seen[numbered(n)], n)
	}
}

func TestRotationWaitsForNobody(t *testing.T) {
	file := path(t)
	f := rotate.New(rotate.Config{Path: file, MaxBytes: full, Keep: 1})
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	write(t, f, numbered(0))
	other, err := os.Open(file)
	require.NoError(t, err)
	defer other.Close()
	require.NoError(t, syscall.Flock(int(other.Fd()), syscall.LOCK_EX))
	for n := range full / 10 {
		write(t, f, numbered(n))
	}
	require.Equal(t, []string{""}, files(t, file), "another process is rotating")
	require.NoError(t, syscall.Flock(int(other.Fd()), syscall.LOCK_UN))
	write(t, f, numbered(1))
	require.Equal(t, numbered(1), read(t, file))
}

func TestRotationThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file, failures := path(t), 0
		require.NoError(t, os.MkdirAll(filepath.Join(file+".2", "x"), 0o700))
		f := rotate.New(rotate.Config{Path: file, MaxBytes: full, Keep: 1, Failed: func() { failures++ }})
		for n := range full / 10 {
			write(t, f, numbered(n))
		}
		require.Error(t, f.Stuck())
		require.Equal(t, 1, failures, "it is not tried again at once")
		require.Len(t, read(t, file), 2*full, "the file grows")
		require.NoError(t, os.RemoveAll(file+".2"))
		time.Sleep(time.Second)
		write(t, f, numbered(1))
		require.NoError(t, f.Stuck())
		require.Equal(t, numbered(1), read(t, file))
		require.NoError(t, f.Close())
	})
}

func TestAFileThatCannotBeWritten(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T, file string){
		"no room":     func(t *testing.T, file string) { require.NoError(t, os.Symlink("/dev/full", file)) },
		"a directory": func(t *testing.T, file string) { require.NoError(t, os.Mkdir(file, 0o700)) },
	} {
		t.Run(name, func(t *testing.T) {
			file, failures := path(t), 0
			prepare(t, file)
			f := rotate.New(rotate.Config{Path: file, Failed: func() { failures++ }})
			n, err := f.Write([]byte("lost\n"))
			require.Error(t, err)
			require.Zero(t, n)
			require.Equal(t, 1, failures)
			require.NoError(t, os.Remove(file))
			write(t, f, "kept\n")
			require.Equal(t, "kept\n", read(t, file))
			require.NoError(t, f.Close())
		})
	}
}
