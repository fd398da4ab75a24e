package embedded

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// spaceInterval is how often the database is checked.
const spaceInterval = 5 * time.Second

// patience is how many times history that is still needed is spared.
const patience = 6

// KeepRoom makes room in the database whenever it has reached its quota, until ctx ends. etcd then refuses every write until
// someone removes old revisions, defragments the database and disarms the alarm; on a node nobody is there to do it. History
// after the revision that needed returns is spared at first, and given up only when sparing it does not help for half a minute.
func (s *Server) KeepRoom(ctx context.Context, quota int64, needed func() int64, log *slog.Logger) error {
	tick := time.NewTicker(spaceInterval)
	defer tick.Stop()
	for rounds := 0; ; rounds++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if !s.full() {
			rounds = 0
			continue
		}
		upTo := needed()
		if rounds > patience {
			upTo = 0
		}
		size, err := s.makeRoom(ctx, upTo)
		switch {
		case err != nil && ctx.Err() == nil:
			log.Error("the database has reached its quota and old revisions could not be removed, trying again", "quota", quota, "error", err)
		case err == nil && s.full():
			log.Error("the database has reached its quota with records in use: raise storage.quota or remove services", "quota", quota, "in_use", size)
		case err == nil:
			log.Warn("the database had reached its quota, old revisions were removed", "quota", quota, "in_use", size)
		}
	}
}

// Full says that the database is full, or "" if it is not.
func (s *Server) Full() string {
	if s.full() {
		return "has reached its quota (storage.quota): changes are refused until there is room again"
	}
	return ""
}

func (s *Server) full() bool {
	for _, a := range s.etcd.Server.Alarms() {
		if a.Alarm == etcdserverpb.AlarmType_NOSPACE {
			return true
		}
	}
	return false
}

// makeRoom removes the revisions before upTo, or before the current one if upTo is 0, shrinks the file, and disarms the alarm
// if that made room.
func (s *Server) makeRoom(ctx context.Context, upTo int64) (inUse int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	c := s.store.Client
	now, err := c.Get(ctx, "x", clientv3.WithCountOnly())
	if err != nil {
		return 0, fmt.Errorf("read the revision: %w", err)
	}
	if upTo <= 0 || upTo > now.Header.Revision {
		upTo = now.Header.Revision
	}
	// Compacting again at the same revision fails, which does no harm.
	_, _ = c.Compact(ctx, upTo, clientv3.WithCompactPhysical())
	if _, err := c.Defragment(ctx, c.Endpoints()[0]); err != nil {
		return 0, fmt.Errorf("give room back: %w", err)
	}
	status, err := c.Status(ctx, c.Endpoints()[0])
	if err != nil {
		return 0, fmt.Errorf("read the size: %w", err)
	}
	if status.DbSize*10 < s.quota*9 {
		if _, err := c.AlarmDisarm(ctx, &clientv3.AlarmMember{}); err != nil {
			return status.DbSize, fmt.Errorf("take the alarm away: %w", err)
		}
	}
	return status.DbSize, nil
}
