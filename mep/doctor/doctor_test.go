package doctor

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/identity"
)

// alarming returns the findings that require action.
func alarming(r Report) []Finding {
	var list []Finding
	for _, f := range r {
		if f.Level == Warn || f.Level == Fail {
			list = append(list, f)
		}
	}
	return list
}

func TestNothingIsFoundWhereEverythingIsInOrder(t *testing.T) {
	for name, make := range map[string]func(*testing.T) *fixture{
		"never started": planned, "stopped": stopped, "running": running, "etcd beside it": outside,
		"in development mode": func(t *testing.T) *fixture {
			f := running(t)
			f.remove(t, "pki")
			return f
		},
		"a certificate of the operator's": func(t *testing.T) *fixture {
			f := stopped(t)
			f.Server.PublicURL, f.Auth.PublicURL = "https://localhost:8088", "https://localhost"
			f.Common.TLSClientCAs = []string{f.keep(t, nil).file}
			return f
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := make(t)
			if name == "in development mode" {
				f.Common.Dev = true
				require.Equal(t, []string{"dev"}, subjects(alarming(examine(t.Context(), f.Installation, f.host))))
				return
			}
			report := examine(t.Context(), f.Installation, f.host)
			require.Empty(t, alarming(report))
			require.Zero(t, report.Faults())
			checks := map[string]bool{}
			for _, one := range report {
				checks[one.Check] = true
				require.NotEmpty(t, one.Subject)
				require.NotEmpty(t, one.Finding)
			}
			require.Subset(t, checks, map[string]bool{
				checkConfiguration: true, checkData: true, checkCertificates: true, checkClocks: true, checkPorts: true,
				checkEtcd: true, checkTokens: true, checkPlatform: true, checkLimits: true,
			}, "every check says something")
		})
	}
}

func subjects(list []Finding) []string {
	var all []string
	for _, f := range list {
		all = append(all, f.Subject)
	}
	return all
}

// broken is an installation with one fault, and the only findings it must lead to.
type broken struct {
	of      func(*testing.T) *fixture // stopped, unless it says otherwise
	by      func(*testing.T, *fixture)
	level   Level  // Fail, unless it says otherwise
	finding string // in the subject and the finding
	remedy  string // in the remedy
}

func (b broken) run(t *testing.T, check string) {
	t.Helper()
	if b.of == nil {
		b.of = stopped
	}
	f := b.of(t)
	b.by(t, f)
	found := alarming(examine(t.Context(), f.Installation, f.host))
	require.Len(t, found, 1, "%+v", found)
	require.Equal(t, check, found[0].Check)
	require.Equal(t, cmp.Or(b.level, Fail), found[0].Level, "%+v", found[0])
	require.Contains(t, found[0].Subject+" "+found[0].Finding, b.finding)
	require.Contains(t, found[0].Remedy, b.remedy)
	require.NotEmpty(t, found[0].Remedy)
}

// each runs the cases of one check.
func each(t *testing.T, check string, cases map[string]broken) {
	t.Helper()
	for name, b := range cases {
		t.Run(name, func(t *testing.T) { b.run(t, check) })
	}
}

func TestThisVeryMachineIsExamined(t *testing.T) {
	f := planned(t)
	report := Examine(t.Context(), f.Installation)
	require.Zero(t, report.Faults(), "%+v", report)
	require.Contains(t, report, Finding{Check: checkPlatform, Level: Note, Subject: "the platform", Finding: "does not run"})
}

func TestAnExaminationChangesNothing(t *testing.T) {
	for name, make := range map[string]func(*testing.T) *fixture{
		"never started": planned, "stopped": stopped, "running": running, "etcd beside it": outside,
		"without what the first start makes": func(t *testing.T) *fixture {
			f := stopped(t)
			f.remove(t, "auth", "pki", "audit", "lock")
			return f
		},
		"without the key file, with an empty etcd": func(t *testing.T) *fixture {
			f := outside(t)
			f.remove(t, "auth")
			_, err := f.etcd.Client(t).Delete(t.Context(), state.Root, clientv3.WithPrefix())
			require.NoError(t, err)
			return f
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := make(t)
			tree, revision := inventory(t, f.Common.DataDir), int64(0)
			if f.etcd != nil {
				revision = revisionOf(t, f)
			}
			examine(t.Context(), f.Installation, f.host)
			require.Equal(t, tree, inventory(t, f.Common.DataDir))
			if f.etcd != nil {
				require.Equal(t, revision, revisionOf(t, f))
			}
		})
	}
}

func revisionOf(t *testing.T, f *fixture) int64 {
	t.Helper()
	r, err := f.etcd.Store(t).Revision(t.Context(), state.Root)
	require.NoError(t, err)
	return r
}

// inventory describes everything below the directory above dir, which may not exist.
func inventory(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	require.NoError(t, filepath.WalkDir(filepath.Dir(dir), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil {
			all[path] = fmt.Sprint(info.Mode(), info.ModTime(), info.Size())
		}
		return err
	}))
	return all
}

func TestAnExaminationEndsWithItsContext(t *testing.T) {
	f := outside(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = silent.Close() })
	at := silent.Addr().String()
	f.Common.OpsListen, f.Common.EtcdEndpoints = at, []string{at}
	f.Common.Identity.Issuers = []identity.TrustedIssuer{{Issuer: "other", JWKSURL: "http://" + at}}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NotEmpty(t, examine(ctx, f.Installation, f.host), "servers that do not answer hold nobody up")
}
