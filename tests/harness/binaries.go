package harness

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// BinEnv names the environment variable with the directory of the built programs. If it is not set, each test process builds
// the programs once.
const BinEnv = "MEP_BIN"

// built lists the directories that this process built programs into, to be removed at its end.
var (
	building sync.Mutex
	built    []string
)

// Main runs the tests of a package; call it from TestMain. Black-box tests mostly wait for processes, so more of them run in
// parallel than there are processors, unless -parallel says otherwise.
func Main(m *testing.M) int {
	flag.Parse()
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "test.parallel" })
	if !chosen {
		_ = flag.Set("test.parallel", "8") // a flag of package testing that always exists
	}
	defer func() {
		for _, dir := range built {
			_ = os.RemoveAll(dir)
		}
	}()
	return m.Run()
}

// binary returns the path of a program.
func binary(tb testing.TB, name string) string {
	tb.Helper()
	return programIn(tb, binaries, name)
}

func programIn(tb testing.TB, built func() (string, error), name string) string {
	tb.Helper()
	dir, err := built()
	if err != nil {
		tb.Fatalf("harness: %v", err)
	}
	return filepath.Join(dir, name)
}

var binaries = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv(BinEnv); dir != "" {
		return filepath.Abs(dir)
	}
	return build("nomsgpack", "mep", "mepserver", "mepauth", "dnsagent", "gateway")
})

// faulty builds the programs that end at fault points; see Fault. They are always built from source.
var faulty = sync.OnceValues(func() (string, error) { return build("nomsgpack faults", "mep") })

// build builds programs into a new directory.
func build(tags string, programs ...string) (string, error) {
	root, err := Repository()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "mep-bin-")
	if err != nil {
		return "", err
	}
	building.Lock()
	defer building.Unlock()
	built = append(built, dir)
	for _, program := range programs {
		// Use the Makefile's flags, to benefit from the build cache.
		build := exec.Command("go", "build", "-trimpath", "-tags", tags, "-o", dir, "./cmd/"+program)
		build.Dir = filepath.Join(root, program)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build %s: %w\n%s", program, err, out)
		}
	}
	return dir, nil
}

// Repository finds the root of the source tree above the directory of the test.
func Repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "mep", "cmd", "mep")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("the source of mep is not above the working directory: set %s", BinEnv)
		}
		dir = parent
	}
}
