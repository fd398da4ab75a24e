package doctor

import (
	"os"
	"path/filepath"
	"testing"
)

func TestLimits(t *testing.T) {
	each(t, checkLimits, map[string]broken{
		"too few open files": {
			by:    func(_ *testing.T, f *fixture) { f.Server.MaxConnections = 20000 },
			level: Warn, finding: "may only be 40960 for a process that is started like this one; limits.connections (20000) and gateway.connectionsHard (12000) need 48096", remedy: "LimitNOFILE=48096",
		},
		"too few open files of the platform": {
			of: running,
			by: func(_ *testing.T, f *fixture) {
				f.host.files = func(pid int) (uint64, error) { return map[int]uint64{0: 1 << 20, os.Getpid(): 1024}[pid], nil }
			},
			level: Warn, finding: "may only be 1024 for the running platform", remedy: "ulimit",
		},
		"the audit file cannot be written": {
			by:      func(_ *testing.T, f *fixture) { f.refuse(f.path("audit/audit.log")) },
			finding: "audit.log may not be written", remedy: "audit.file",
		},
		"the audit file cannot be made": {
			by: func(t *testing.T, f *fixture) {
				f.Common.AuditFile = filepath.Join(t.TempDir(), "new", "audit.log")
				f.refuse(filepath.Dir(filepath.Dir(f.Common.AuditFile)))
			},
			finding: "may not make it", remedy: "audit.file",
		},
		"the audit file is a directory": {
			by:      func(t *testing.T, f *fixture) { f.Common.AuditFile = t.TempDir() },
			finding: "is a directory", remedy: "audit.file",
		},
	})
}
