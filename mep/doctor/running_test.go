package doctor

import (
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/kit/ops"
)

func TestAPlatformThatStarts(t *testing.T) {
	f := running(t)
	f.ready.Ready, f.ready.NotReady = false, []ops.Note{{Name: "process", Reason: "is starting"}}
	f.ready.Listeners = map[string]string{"ops": f.ready.Listeners["ops"]}
	report := examine(t.Context(), f.Installation, f.host)
	require.Equal(t, []string{"process"}, subjects(alarming(report)))
	require.Contains(t, report, Finding{
		Check: checkPorts, Level: Note, Subject: "mp1.listen",
		Finding: "127.0.0.1:0 is not bound by the running platform, which is still starting",
	})
	f.write(t, "lock", "")
	require.Contains(t, examine(t.Context(), f.Installation, f.host), Finding{
		Check: checkEtcd, Level: Note, Subject: "embedded etcd",
		Finding: "cannot be asked (" + process{os.Getpid(), processName(os.Getpid())}.String() + " does not say how its etcd is reached)",
	})
}

func TestPlatform(t *testing.T) {
	each(t, checkPlatform, map[string]broken{
		"it is not ready": {
			of: running, by: func(_ *testing.T, f *fixture) {
				f.ready.Ready, f.ready.NotReady = false, []ops.Note{{Name: "tokens", Reason: "cannot be issued yet"}}
			},
			finding: "tokens cannot be issued yet", remedy: "checks of etcd and tokens",
		},
		"it works with restrictions": {
			of:    running,
			by:    func(_ *testing.T, f *fixture) { f.ready.Degraded = []ops.Note{{Name: "state", Reason: "may be stale"}} },
			level: Warn, finding: "state may be stale", remedy: "see to etcd",
		},
		"it does not say why": {
			of: running, by: func(_ *testing.T, f *fixture) { f.ready.Ready = false },
			finding: "does not say why", remedy: "log",
		},
		"it wants a token to say how it is": {
			of: running, by: func(_ *testing.T, f *fixture) { f.ready = ops.Readiness{} },
			level: Warn, finding: "without a token", remedy: "on loopback",
		},
		"it does not answer": {
			of: running, by: func(t *testing.T, f *fixture) { f.Common.OpsListen = free(t) },
			finding: fmt.Sprintf("is used by process %d", os.Getpid()), remedy: "ops.listen",
		},
	})
	for part, remedy := range map[string]string{
		"process": "wait", "certificates": "mend the file", "storage": "make room", "another": "log of the platform",
	} {
		require.Contains(t, hint(part), remedy, part)
	}
}

func TestAnotherPlatformIsNotTakenForThisOne(t *testing.T) {
	f := stopped(t)
	f.serve(t)
	found := alarming(examine(t.Context(), f.Installation, f.host))
	require.Equal(t, []string{"ops.listen"}, subjects(found), "its listener is in the way")
	require.Contains(t, examine(t.Context(), f.Installation, f.host), Finding{
		Check: checkPlatform, Level: Note, Subject: "the platform",
		Finding: "does not run on this data directory; what answers at " + f.Common.OpsListen + " is another one",
	})
}
