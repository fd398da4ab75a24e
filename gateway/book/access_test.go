package book

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/audit"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/etcdtest"
)

var manager = Party{Subject: "mepm", Manager: true}

func TestAccessIsAppliedForGrantedAndRevoked(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	services := registry{"telemetry": {"owner"}}
	b, other := open(t, store, services), open(t, store, services)
	ctx, access := t.Context(), b.Access

	r, err := access.Apply(ctx, "app", gateway.AccessApplication{SerName: "telemetry", Purpose: "dashboards"})
	require.NoError(t, err)
	require.NoError(t, uuid.Validate(r.Info.ID))
	require.Equal(t, "owner", r.Info.Owner)
	require.Equal(t, gateway.AccessPending, r.Info.State)
	require.Equal(t, "dashboards", r.Info.Purpose)
	require.False(t, access.Granted("owner", "telemetry", "app"))
	require.ErrorIs(t, errOf(access.Apply(ctx, "app", gateway.AccessApplication{SerInstanceID: "owner/telemetry"})), errs.Conflict)

	grant, refuse := gateway.AccessDecision{State: gateway.AccessGranted, Reason: "fine"}, gateway.AccessDecision{State: gateway.AccessRefused, Reason: "no"}
	require.ErrorIs(t, errOf(access.Decide(ctx, r.Info.ID, Party{Subject: "app"}, grant, nil)), errs.Forbidden, "not by the consumer")
	require.ErrorIs(t, errOf(access.Decide(ctx, r.Info.ID, Party{Subject: "somebody"}, grant, nil)), errs.NotFound)
	require.ErrorIs(t, errOf(access.Decide(ctx, "none", manager, grant, nil)), errs.NotFound)
	granted, err := access.Decide(ctx, r.Info.ID, Party{Subject: "owner"}, grant, nil)
	require.NoError(t, err)
	require.Equal(t, gateway.AccessGranted, granted.Info.State)
	require.Equal(t, "owner", granted.Info.DecidedBy)
	require.False(t, granted.Info.Decided.IsZero())
	require.True(t, access.Granted("owner", "telemetry", "app"))
	require.NoError(t, other.Access.mirror.WaitRevision(ctx, granted.Revision))
	require.True(t, other.Access.Granted("owner", "telemetry", "app"), "in the other process, too")
	for _, wrong := range [][3]string{{"owner", "telemetry", "other"}, {"other", "telemetry", "app"}, {"owner", "other", "app"}, {"ownertelemetry", "", "app"}} {
		require.False(t, access.Granted(wrong[0], wrong[1], wrong[2]))
	}
	require.ErrorIs(t, errOf(access.Apply(ctx, "app", gateway.AccessApplication{SerName: "telemetry"})), errs.Conflict)
	same, err := access.Decide(ctx, r.Info.ID, Party{Subject: "owner"}, grant, nil)
	require.NoError(t, err)
	require.Equal(t, granted.ETag(), same.ETag(), "what changes nothing keeps the entity-tag")

	refused, err := access.Decide(ctx, r.Info.ID, manager, refuse, nil)
	require.NoError(t, err)
	require.Equal(t, "mepm", refused.Info.DecidedBy)
	require.False(t, access.Granted("owner", "telemetry", "app"))
	again, err := access.Apply(ctx, "app", gateway.AccessApplication{SerName: "telemetry"})
	require.NoError(t, err, "what was refused may be asked for again")
	require.NotEqual(t, r.Info.ID, again.Info.ID)
	require.ErrorIs(t, errOf(access.Get(r.Info.ID, manager)), errs.NotFound)

	require.NoError(t, errOf(access.Decide(ctx, again.Info.ID, manager, grant, nil)))
	require.True(t, access.Granted("owner", "telemetry", "app"))
	require.ErrorIs(t, errOf(access.Delete(ctx, again.Info.ID, Party{Subject: "somebody"}, nil)), errs.NotFound)
	require.NoError(t, errOf(access.Delete(ctx, again.Info.ID, Party{Subject: "app"}, nil)))
	require.False(t, access.Granted("owner", "telemetry", "app"))
	require.ErrorIs(t, errOf(access.Delete(ctx, again.Info.ID, manager, nil)), errs.NotFound)
}

func TestWhatMayBeAppliedFor(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	b := open(t, store, registry{"one": {"a"}, "several": {"a", "b"}, "twice": {"a", "a"}})
	for name, x := range map[string]struct {
		consumer string
		app      gateway.AccessApplication
		want     error
		owner    string
	}{
		"by name":               {"app", gateway.AccessApplication{SerName: "one"}, nil, "a"},
		"two instances":         {"app", gateway.AccessApplication{SerName: "twice"}, nil, "a"},
		"several owners":        {"app", gateway.AccessApplication{SerName: "several"}, errs.Invalid, ""},
		"one of several owners": {"app", gateway.AccessApplication{SerInstanceID: "b/several"}, nil, "b"},
		"no such name":          {"app", gateway.AccessApplication{SerName: "none"}, errs.NotFound, ""},
		"no such instance":      {"app", gateway.AccessApplication{SerInstanceID: "none"}, errs.NotFound, ""},
		"not to be known":       {"stranger", gateway.AccessApplication{SerName: "one"}, errs.NotFound, ""},
		"one's own":             {"a", gateway.AccessApplication{SerName: "one"}, errs.Conflict, ""},
	} {
		r, err := b.Access.Apply(t.Context(), x.consumer, x.app)
		if x.want != nil {
			require.ErrorIs(t, err, x.want, name)
			continue
		}
		require.NoError(t, err, name)
		require.Equal(t, x.owner, r.Info.Owner, name)
	}
	b.Access.room.perHolder = b.Access.room.holders["app"]
	b.Access.services = registry{"more": {"c"}}
	require.ErrorIs(t, errOf(b.Access.Apply(t.Context(), "app", gateway.AccessApplication{SerName: "more"})), errs.Forbidden)
}

func TestRequestsAreListedForThoseTheyConcern(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	b := open(t, store, registry{"s": {"o1"}, "t": {"o2"}})
	for _, x := range [][2]string{{"c1", "s"}, {"c1", "t"}, {"c2", "s"}, {"o1", "t"}} {
		r, err := b.Access.Apply(t.Context(), x[0], gateway.AccessApplication{SerName: x[1]})
		require.NoError(t, err)
		if x[0] == "c2" {
			_, err = b.Access.Decide(t.Context(), r.Info.ID, manager, gateway.AccessDecision{State: gateway.AccessGranted}, nil)
			require.NoError(t, err)
		}
	}
	list := func(f Filter, who Party, after string) string {
		var found []string
		for r := range b.Access.List(f, who, after) {
			found = append(found, r.Info.Consumer+"→"+r.Info.SerName)
		}
		return strings.Join(found, " ")
	}
	for name, x := range map[string]struct {
		f    Filter
		who  Party
		want string
	}{
		"all":                  {Filter{}, manager, "c1→s c2→s c1→t o1→t"},
		"granted":              {Filter{State: gateway.AccessGranted}, manager, "c2→s"},
		"of a consumer":        {Filter{Consumer: "c1"}, manager, "c1→s c1→t"},
		"of an owner":          {Filter{Owner: "o1", State: gateway.AccessPending}, manager, "c1→s"},
		"consumer":             {Filter{}, Party{Subject: "c1"}, "c1→s c1→t"},
		"consumer and owner":   {Filter{}, Party{Subject: "o1"}, "c1→s c2→s o1→t"},
		"somebody else's":      {Filter{Consumer: "c1"}, Party{Subject: "c2"}, ""},
		"nobody":               {Filter{}, Party{}, ""},
		"a name of a manager":  {Filter{}, Party{Subject: "mepm"}, ""},
		"what one was granted": {Filter{State: gateway.AccessGranted}, Party{Subject: "c2"}, "c2→s"},
	} {
		require.Equal(t, x.want, list(x.f, x.who, ""), name)
	}
	for r := range b.Access.List(Filter{}, manager, "") {
		require.Equal(t, "c2→s c1→t o1→t", list(Filter{}, manager, r.Place()))
		break
	}
}

func put(t *testing.T, store *etcd.Store, key, value string) int64 {
	t.Helper()
	resp, err := store.Do(t.Context(), clientv3.OpPut(key, value))
	require.NoError(t, err)
	return resp.Put().Header.Revision
}

func TestWhatAnAppLeavesBehindIsRemoved(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	goes, stays, back := uuid.NewString(), uuid.NewString(), uuid.NewString()
	services := registry{"s": {stays}, "t": {goes}}
	b := open(t, store, services)
	for _, app := range []string{goes, stays, back} {
		put(t, store, state.AppKey(app), `{"v":1,"origin":"dev"}`)
	}
	apply := func(consumer, serName string) string {
		r, err := b.Access.Apply(t.Context(), consumer, gateway.AccessApplication{SerName: serName})
		require.NoError(t, err)
		return r.Info.ID
	}
	key := func(consumer string) string {
		k, err := b.Keys.Create(t.Context(), gateway.APIKeyRequest{Consumer: consumer})
		require.NoError(t, err)
		return k.ID
	}
	gone := []string{apply(goes, "s"), apply("somebody", "t"), apply(stays, "t"), apply(back, "s")}
	goneKeys := []string{key(goes), key(back)}
	kept := apply("somebody", "s")
	keptKeys := []string{key(stays), key("somebody")}

	trailFile := filepath.Join(t.TempDir(), "audit.log")
	trail, err := audit.Open(audit.Config{File: trailFile})
	require.NoError(t, err)
	t.Cleanup(func() { _ = trail.Close() })
	for _, app := range []string{goes, back} {
		_, err := store.Do(t.Context(), clientv3.OpDelete(state.AppKey(app)))
		require.NoError(t, err)
	}
	// One app instance is back before anyone sweeps.
	revision := put(t, store, state.AppKey(back), `{"v":1,"origin":"dev"}`)
	require.NoError(t, b.Keys.mirror.WaitRevision(t.Context(), revision))
	keptKeys = append(keptKeys, key(back))

	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() { _ = b.Sweep(ctx, trail, slog.New(slog.DiscardHandler)) })
	t.Cleanup(func() { cancel(); done.Wait() })
	left := func() bool {
		for _, id := range gone {
			if _, err := b.Access.Get(id, manager); err == nil {
				return true
			}
		}
		for _, id := range goneKeys {
			if _, err := b.Keys.Get(id); err == nil {
				return true
			}
		}
		return len(b.Access.gone.list()) > 0
	}
	require.Eventually(t, func() bool { return !left() }, 10*time.Second, 5*time.Millisecond)
	require.NoError(t, errOf(b.Access.Get(kept, manager)))
	for _, id := range keptKeys {
		require.NoError(t, errOf(b.Keys.Get(id)))
	}
	require.Eventually(t, func() bool {
		text, err := os.ReadFile(trailFile)
		return err == nil && strings.Count(string(text), `"action":"gateway.access.delete"`) == len(gone) &&
			strings.Count(string(text), `"action":"gateway.api_key.delete"`) == len(goneKeys)
	}, 10*time.Second, 5*time.Millisecond)

	// Another one ends while Sweep is running.
	_, err = store.Do(t.Context(), clientv3.OpDelete(state.AppKey(stays)))
	require.NoError(t, err)
	require.Eventually(t, func() bool { return b.Access.Collection().Snapshot().Len() == 0 }, 10*time.Second, 5*time.Millisecond)
}
