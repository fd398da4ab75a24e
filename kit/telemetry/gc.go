package telemetry

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// smallHeap is the size of live memory up to which garbage is collected half as often as Go does by itself: the room that
// costs is small, and collecting is a tenth of the work of a busy platform.
const smallHeap = 32 << 20

// TuneGC lets small heaps grow to three times their live size, and larger ones to twice, as Go does by itself. It does
// nothing when GOGC is set. It returns when ctx ends.
func TuneGC(ctx context.Context) error {
	if os.Getenv("GOGC") != "" {
		<-ctx.Done()
		return nil
	}
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	was := 0
	for {
		percent := 200
		if metrics.Read(live); live[0].Value.Uint64() > smallHeap {
			percent = 100
		}
		if percent != was {
			debug.SetGCPercent(percent)
			was = percent
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
