package telemetry

import (
	"context"
	"math"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// apart is the intended time between collections on a busy platform. Each takes processor time from everything in progress: at ten a
	// second, one call in a hundred waits for milliseconds.
	apart = 2 * time.Second
	// mostRoom bounds the garbage allowed for that, in bytes; it is also bounded to 1/part of the memory.
	mostRoom = 128 << 20
	part     = 8
	// mostPercent bounds the percentage for tiny heaps.
	mostPercent = 2000
)

// percent returns the GC percentage for live bytes of memory: Go's default, or, if that is more, one with room for the garbage made
// within apart at rate bytes per second, up to most bytes.
func percent(live, rate, most uint64) int {
	room := min(rate*uint64(apart/time.Second), most)
	return int(min(max(100*room/max(live, 1), 100), mostPercent))
}

// ceiling returns the memory limit in bytes for a percentage: the given one for the default, else at most what is live and the room. A
// percentage suits what was live when it was chosen: if that grows at once, as with a flood of large requests, the same percentage allows
// many times as much garbage.
func ceiling(percent int, given int64, now *allocation, most uint64) int64 {
	if percent == 100 {
		return given
	}
	const slack = 16 << 20 // for spans that are not full, beside a tenth
	limit := now.other + (now.live+max(now.live, most))/10*11 + slack
	return min(given, int64(limit)) //nolint:gosec // there is no such memory
}

// TuneGC allows a busy platform more garbage than Go does by default, and the default again when it is idle. It does nothing if GOGC is
// set, and respects GOMEMLIMIT. It returns when ctx ends.
func TuneGC(ctx context.Context) error {
	if os.Getenv("GOGC") != "" {
		<-ctx.Done()
		return nil
	}
	const look = time.Second
	tick := time.NewTicker(look)
	defer tick.Stop()
	most := min(memory()/part, mostRoom)
	given := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(given)
	var rate uint64
	for made, was, limit := allocated(), 100, given; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := allocated()
		// Load comes at once, and does not end with its first pause.
		rate = max((now.total-made.total)/uint64(look/time.Second), min(rate, most)*2/3)
		made = now
		p := percent(now.live, rate, most)
		if p <= was+was/4 && p >= was-was/5 && p != 100 {
			p = was
		}
		if next := ceiling(p, given, &now, most); next != limit {
			debug.SetMemoryLimit(next)
			limit = next
		}
		if p != was {
			debug.SetGCPercent(p)
			was = p
			if p == 100 {
				debug.FreeOSMemory() // an idle process would not collect what there is for minutes
			}
		}
	}
}

// allocation is how many bytes were live at the last collection, how many were ever allocated, and how many the runtime has besides the
// heap.
type allocation struct{ live, total, other uint64 }

func allocated() allocation {
	s := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"}, {Name: "/gc/heap/allocs:bytes"}, {Name: "/memory/classes/total:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/memory/classes/heap/free:bytes"}, {Name: "/memory/classes/heap/released:bytes"},
	}
	metrics.Read(s)
	a := allocation{live: s[0].Value.Uint64(), total: s[1].Value.Uint64(), other: s[2].Value.Uint64()}
	for _, heap := range s[3:] {
		a.other -= min(a.other, heap.Value.Uint64())
	}
	return a
}

// memory returns how many bytes this process may use: those of the machine, or of its container if that has less.
func memory() uint64 {
	all := uint64(math.MaxUint64)
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		all = uint64(info.Totalram) * uint64(info.Unit) //nolint:unconvert // the types differ on other architectures
	}
	for _, limit := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		if text, err := os.ReadFile(limit); err == nil {
			if n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err == nil { // "max" means no limit
				all = min(all, n)
			}
		}
	}
	return all
}
