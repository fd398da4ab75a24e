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
	// apart is how far apart collections are to be on a busy platform. Each takes processor time away from everything that is under way:
	// with ten a second, one call in a hundred waits for milliseconds.
	apart = 2 * time.Second
	// mostRoom is how much garbage there may be at most for that, and part how much of the memory there is: one of so many.
	mostRoom = 128 << 20
	part     = 8
	// mostPercent bounds what tiny heaps get.
	mostPercent = 2000
)

// percent is how much garbage there may be beside live memory of a size: as much as Go has by itself, or as much as is made within apart
// at a rate in bytes per second, if that is more, up to most.
func percent(live, rate, most uint64) int {
	room := min(rate*uint64(apart/time.Second), most)
	return int(min(max(100*room/max(live, 1), 100), mostPercent))
}

// TuneGC gives a busy platform more room for garbage than Go does by itself, and takes it back when it is quiet. It does nothing when
// GOGC is set. It returns when ctx ends.
func TuneGC(ctx context.Context) error {
	if os.Getenv("GOGC") != "" {
		<-ctx.Done()
		return nil
	}
	const look = time.Second
	tick := time.NewTicker(look)
	defer tick.Stop()
	most := min(memory()/part, mostRoom)
	var rate uint64
	for made, was := allocated(), 100; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := allocated()
		// Load comes at once, and is not over with its first pause.
		rate = max((now.total-made.total)/uint64(look/time.Second), min(rate, most)*2/3)
		made = now
		if p := percent(now.live, rate, most); p > was+was/4 || p < was-was/5 || p == 100 && was > p {
			debug.SetGCPercent(p)
			was = p
			if p == 100 {
				debug.FreeOSMemory() // who makes no garbage would not collect what there is for minutes
			}
		}
	}
}

// allocation is how much memory was live when it was last collected, and how much was ever asked for.
type allocation struct{ live, total uint64 }

func allocated() allocation {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return allocation{s[0].Value.Uint64(), s[1].Value.Uint64()}
}

// memory is how much there is for this process: that of the machine, or of its container if that has less.
func memory() uint64 {
	all := uint64(math.MaxUint64)
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		all = uint64(info.Totalram) * uint64(info.Unit) //nolint:unconvert // of other types on other processors
	}
	for _, limit := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		if text, err := os.ReadFile(limit); err == nil {
			if n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err == nil { // it is "max" when there is none
				all = min(all, n)
			}
		}
	}
	return all
}
