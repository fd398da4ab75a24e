package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestData(t *testing.T) {
	each(t, checkData, map[string]broken{
		"a file in its place": {
			of: planned, by: func(t *testing.T, f *fixture) { f.write(t, f.Common.DataDir, "") },
			finding: "is not a directory", remedy: "dataDir",
		},
		"it cannot be made": {
			of: planned, by: func(_ *testing.T, f *fixture) { f.refuse(filepath.Dir(f.Common.DataDir)) },
			finding: "may not make it", remedy: "make it",
		},
		"read-only": {
			by: func(_ *testing.T, f *fixture) {
				f.host.room = func(string) (room, error) { return room{free: 10240 * mib, readOnly: true}, nil }
			},
			finding: "mounted read-only", remedy: "mount it for writing",
		},
		"of another user": {
			by:      func(_ *testing.T, f *fixture) { f.refuse(f.Common.DataDir) },
			finding: "may not be used by user", remedy: "as the user of the platform",
		},
		"files that root left": {
			by:      func(_ *testing.T, f *fixture) { f.host.uid = os.Geteuid() + 1 },
			finding: "has lock, etcd, ", remedy: "chown -R",
		},
		"files of another user than the platform": {
			of: running,
			by: func(_ *testing.T, f *fixture) {
				f.host.owner = func(int) (int, error) { return os.Geteuid() + 1, nil }
			},
			finding: fmt.Sprintf("of another user than %d", os.Geteuid()+1), remedy: "chown -R",
		},
		"open to changes": {
			by:      func(t *testing.T, f *fixture) { f.chmod(t, ".", 0o777) },
			finding: "can be changed by every user", remedy: "chmod o-w",
		},
		"the key file can be read": {
			by:      func(t *testing.T, f *fixture) { f.chmod(t, "auth/seal.key", 0o644) },
			finding: "seal.key has the permissions 0644", remedy: "chmod 600",
		},
		"the first credential can be read": {
			by:      func(t *testing.T, f *fixture) { f.chmod(t, "bootstrap/mepm.json", 0o604) },
			finding: "mepm.json has the permissions 0604", remedy: "chmod 600",
		},
		"the database can be looked into": {
			by:    func(t *testing.T, f *fixture) { f.chmod(t, "etcd", 0o755) },
			level: Warn, finding: "etcd has the permissions 0755", remedy: "chmod 700",
		},
		"hardly any room": {
			by: func(_ *testing.T, f *fixture) {
				f.host.room = func(string) (room, error) { return room{free: 127 * mib}, nil }
			},
			finding: "has 127 MiB free on its file system, less than storage.reserve (128 MiB)", remedy: "make room",
		},
		"not much room": {
			by: func(_ *testing.T, f *fixture) {
				f.host.room = func(string) (room, error) { return room{free: 500 * mib}, nil }
			},
			level: Warn, finding: "has 500 MiB free", remedy: "make room",
		},
		"no room, with etcd beside it": {
			of: outside, by: func(_ *testing.T, f *fixture) {
				f.host.room = func(string) (room, error) { return room{}, nil }
			},
			finding: "is full", remedy: "make room",
		},
		"a file system that does not answer": {
			by: func(_ *testing.T, f *fixture) {
				f.host.room = func(string) (room, error) { return room{}, syscall.EIO }
			},
			level: Warn, finding: "input/output error", remedy: "file system",
		},
	})
}

func TestTheHolderOfTheDataDirectoryIsNamed(t *testing.T) {
	f := running(t)
	f.host.owner = func(pid int) (int, error) {
		require.Equal(t, os.Getpid(), pid)
		return os.Geteuid(), nil
	}
	require.Contains(t, examine(t.Context(), f.Installation, f.host), Finding{
		Check: checkData, Level: OK, Subject: f.LockFile,
		Finding: fmt.Sprintf("is held by process %d (%s)", os.Getpid(), processName(os.Getpid())),
	})
}
