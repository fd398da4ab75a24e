package watched

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// record is one key in a snapshot file.
type record struct {
	Key            string `json:"k"`
	Value          []byte `json:"v"`
	CreateRevision int64  `json:"c"`
	ModRevision    int64  `json:"m"`
}

// trailer ends a snapshot file; a file without one is incomplete.
type trailer struct {
	Format   string `json:"format"`
	Revision int64  `json:"revision"`
	Count    int    `json:"count"`
	SHA256   string `json:"sha256"`
}

const snapshotFormat = "mep-snapshot-1"

func (m *Mirror) saveLoop(ctx context.Context) {
	tick := time.NewTicker(m.cfg.SnapshotInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			m.trySave()
		case <-ctx.Done():
			m.trySave()
			return
		}
	}
}

func (m *Mirror) trySave() {
	if !m.dirty.Swap(false) {
		return
	}
	if err := m.save(); err != nil {
		m.dirty.Store(true)
		m.log.Warn("snapshot not written", "file", m.cfg.SnapshotFile, "error", err)
	}
}

// save writes all collections as of one revision: JSON lines, then a trailer with their count and checksum. It replaces the file
// atomically.
func (m *Mirror) save() (err error) {
	if err = os.MkdirAll(filepath.Dir(m.cfg.SnapshotFile), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(m.cfg.SnapshotFile), ".snapshot-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	m.applying.Lock()
	revision := m.revision.Load()
	var writers []func(func(record) error) error
	last := ""
	for _, s := range m.sources {
		// A collection whose prefix is below that of another is written with that one.
		if last != "" && strings.HasPrefix(s.prefix(), last) {
			continue
		}
		last = s.prefix()
		writers = append(writers, s.freeze())
	}
	m.applying.Unlock()

	sum := sha256.New()
	buf := bufio.NewWriterSize(io.MultiWriter(f, sum), 64<<10)
	enc := json.NewEncoder(buf)
	count := 0
	for _, write := range writers {
		if err = write(func(r record) error { count++; return enc.Encode(r) }); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	err = buf.Flush()
	if err == nil {
		err = json.NewEncoder(f).Encode(trailer{
			Format: snapshotFormat, Revision: revision, Count: count, SHA256: hex.EncodeToString(sum.Sum(nil)),
		})
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), m.cfg.SnapshotFile)
}

// restore loads the state on disk as soon as etcd is known to be unavailable, and at the latest after SnapshotDelay. It moves a
// damaged file aside in any case.
func (m *Mirror) restore(ctx context.Context, away <-chan struct{}) {
	events, revision, err := m.readSnapshot()
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err != nil {
		aside := m.cfg.SnapshotFile + ".damaged"
		m.log.Error("snapshot on disk is not usable and is set aside",
			"file", m.cfg.SnapshotFile, "moved_to", aside, "error", errors.Join(err, os.Rename(m.cfg.SnapshotFile, aside)))
		return
	}
	select {
	case <-away:
	case <-time.After(m.cfg.SnapshotDelay):
	case <-m.ready:
	case <-ctx.Done():
	}
	m.applying.Lock()
	defer m.applying.Unlock()
	select {
	case <-m.ready: // etcd was reached
	case <-ctx.Done():
	default:
		m.restored.Store(true)
		m.commit(events, revision)
		m.dirty.Store(false)
		m.log.Info("state loaded from disk until etcd is reached", "file", m.cfg.SnapshotFile, "revision", revision, "records", len(events))
	}
}

func (m *Mirror) readSnapshot() ([]event, int64, error) {
	f, err := os.Open(m.cfg.SnapshotFile)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	var (
		events  []event
		sum     = sha256.New()
		lines   = bufio.NewReaderSize(f, 64<<10)
		pending []byte
		count   int
	)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF && len(line) == 0 {
			break
		}
		if err != nil && err != io.EOF {
			return nil, 0, err
		}
		if pending != nil {
			ev, err := m.snapshotEvent(pending, sum)
			if err != nil {
				return nil, 0, err
			}
			count++
			for ev.src = range m.sourcesOf(ev.key) {
				events = append(events, ev)
			}
		}
		pending = line
	}
	var t trailer
	if err := json.Unmarshal(pending, &t); err != nil || t.Format != snapshotFormat {
		return nil, 0, errors.New("the file is incomplete or of another format")
	}
	if t.Count != count || t.SHA256 != hex.EncodeToString(sum.Sum(nil)) {
		return nil, 0, errors.New("the checksum does not match")
	}
	return events, t.Revision, nil
}

func (m *Mirror) snapshotEvent(line []byte, sum hash.Hash) (event, error) {
	sum.Write(line)
	var r record
	if err := json.Unmarshal(line, &r); err != nil {
		return event{}, fmt.Errorf("read a record: %w", err)
	}
	return event{key: r.Key, value: r.Value, createRevision: r.CreateRevision, revision: r.ModRevision}, nil
}

// freeze returns a function that writes the present state of the collection.
func (c *Collection[V]) freeze() func(func(record) error) error {
	snapshot := c.current.Load()
	return func(write func(record) error) error {
		for it := range snapshot.All() {
			if err := write(record{it.Key, it.raw, it.CreateRevision, it.ModRevision}); err != nil {
				return err
			}
		}
		return nil
	}
}
