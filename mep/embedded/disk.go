package embedded

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/openmep/mep/kit/errs"
)

// DiskGuard refuses writes while the disk has less free space than etcd needs to keep its log. etcd itself ends the
// process when the disk refuses a write.
type DiskGuard struct {
	dir     string
	reserve int64
	free    atomic.Int64
	log     *slog.Logger
}

// NewDiskGuard returns a guard of the file system that holds dir: it refuses writes while less than reserve bytes are free.
func NewDiskGuard(dir string, reserve int64, log *slog.Logger, reg prometheus.Registerer) *DiskGuard {
	g := &DiskGuard{dir: dir, reserve: reserve, log: log}
	g.look()
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "mep_disk_free_bytes", Help: "Room on the file system of the data directory. Changes are refused below storage.reserve.",
	}, func() float64 { return float64(g.free.Load()) }))
	return g
}

func (g *DiskGuard) look() {
	var st syscall.Statfs_t
	if err := syscall.Statfs(g.dir, &st); err != nil {
		g.log.Warn("free room on the disk not known", "dir", g.dir, "error", err)
		return
	}
	g.free.Store(int64(st.Bavail) * st.Bsize) //nolint:gosec // no file system has 2^63 bytes
}

// Full says why writes are refused, or "" if they are not.
func (g *DiskGuard) Full() string {
	if free := g.free.Load(); free < g.reserve {
		return fmt.Sprintf("has %d MiB left on its disk, less than storage.reserve (%d MiB): changes are refused until there is room again",
			free>>20, g.reserve>>20)
	}
	return ""
}

// Check is a guard for etcd.Store: it fails while writes are refused.
func (g *DiskGuard) Check() error {
	if why := g.Full(); why != "" {
		return errs.New(errs.InsufficientStorage, "the platform %s", why)
	}
	return nil
}

// Run checks the disk until ctx ends.
func (g *DiskGuard) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	was := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		g.look()
		if now := g.Full(); (now == "") != (was == "") {
			if was = now; now != "" {
				g.log.Error("the platform "+now, "dir", g.dir)
			} else {
				g.log.Info("there is room on the disk again, changes are accepted", "dir", g.dir)
			}
		}
	}
}
