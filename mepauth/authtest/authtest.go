// Package authtest provides the environment for tests of mepauth's packages: etcd, mirrors and a seal.
package authtest

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/etcdtest"
	"github.com/openmep/mep/kit/identity"
	"github.com/openmep/mep/kit/watched"
	"github.com/openmep/mep/mepauth/seal"
)

// World is one process's view of an etcd.
type World struct {
	// Server is the etcd server, Store the connection to it.
	Server *etcdtest.Server
	Store  *etcd.Store
	// Public and Private are the mirrors of state.Root and state.AuthRoot. Start runs them.
	Public, Private *watched.Mirror
	// Directory is kept up to date by Public.
	Directory *identity.Directory
	// Seal is the key of the database.
	Seal *seal.Key

	file string
}

// New starts an etcd server and returns a world on it.
func New(tb testing.TB) *World {
	tb.Helper()
	return on(tb, etcdtest.Start(tb), filepath.Join(tb.TempDir(), "seal.key"))
}

// Another returns the world of another process on the same etcd.
func (w *World) Another(tb testing.TB) *World {
	tb.Helper()
	return on(tb, w.Server, w.file)
}

func on(tb testing.TB, server *etcdtest.Server, file string) *World {
	tb.Helper()
	w := &World{Server: server, Store: server.Store(tb), file: file}
	log := slog.New(slog.DiscardHandler)
	w.Public = watched.New(watched.Config{Source: w.Store.Source, Prefix: state.Root, Logger: log})
	w.Private = watched.New(watched.Config{Source: w.Store.Source, Prefix: state.AuthRoot, Logger: log})
	w.Directory = identity.NewDirectory(w.Public)
	var err error
	w.Seal, err = seal.Open(tb.Context(), file, w.Store)
	require.NoError(tb, err)
	return w
}

// Start runs the mirrors and work until the test ends.
func (w *World) Start(tb testing.TB, work ...func(context.Context) error) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	work = append(work, w.Public.Run, w.Private.Run)
	done := make(chan error, len(work))
	for _, run := range work {
		go func() { done <- run(ctx) }()
	}
	tb.Cleanup(func() {
		cancel()
		for range work {
			require.NoError(tb, <-done)
		}
	})
	for _, m := range []*watched.Mirror{w.Public, w.Private} {
		select {
		case <-m.Ready():
		case <-time.After(20 * time.Second):
			tb.Fatal("the state was not read in time")
		}
	}
}

// Settle waits until the mirrors show everything written so far.
func (w *World) Settle(tb testing.TB) {
	tb.Helper()
	revision, err := w.Store.Revision(tb.Context(), state.Root)
	require.NoError(tb, err)
	require.NoError(tb, w.Public.WaitRevision(tb.Context(), revision))
	require.NoError(tb, w.Private.WaitRevision(tb.Context(), revision))
}
