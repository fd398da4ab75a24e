package telemetry

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// room is how much memory there is for garbage at least, up to twice the live memory: the room that costs is small, and collecting is a
// tenth of the work of a busy platform.
const room = 64 << 20

// percent is how much garbage there may be beside live memory of a size: twice as much while that is little, as much as Go has by itself
// when it is a lot, and between them as much as room.
func percent(live uint64) int {
	return int(min(max(room*100/max(live, 1), 100), 200))
}

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
		metrics.Read(live)
		// A small difference is not worth a collection, which setting it begins.
		if p := percent(live[0].Value.Uint64()); p > was+10 || p < was-10 {
			debug.SetGCPercent(p)
			was = p
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
