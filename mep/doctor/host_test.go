package doctor

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const socketTable = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F98 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0000000000000000 100 0 0 10 0
   1: 0100007F:1F98 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0000000000000000 20 4 30 10 -1
   2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0000000000000000 100 0 0 10 0
   3: 0100007F:1F98
`

func TestSocketsThatListen(t *testing.T) {
	require.Equal(t, []string{"4711"}, listening([]byte(socketTable), 8088), "connections do not count")
	require.Equal(t, []string{"4713"}, listening([]byte(socketTable), 22))
	require.Empty(t, listening([]byte(socketTable), 80))
}

func TestWhoListensIsFoundOut(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::]:0"} {
		ln, err := net.Listen("tcp", address)
		require.NoError(t, err)
		p := whoListens(ln.Addr().(*net.TCPAddr).Port)
		require.Equal(t, os.Getpid(), p.pid)
		require.Equal(t, fmt.Sprintf("process %d (%s)", p.pid, p.name), p.String())
		require.NoError(t, ln.Close())
	}
	require.Equal(t, "another process", whoListens(0).String())
	require.Equal(t, "process 5", process{pid: 5}.String())
}

func TestTheOwnerOfALock(t *testing.T) {
	const table = `1: POSIX  ADVISORY  WRITE 10 08:01:99 0 EOF
2: FLOCK  ADVISORY  WRITE 11 08:01:100 0 EOF
3: FLOCK  ADVISORY  WRITE 12 08:02:99 0 EOF
3: -> FLOCK  ADVISORY  WRITE 14 08:01:99 0 EOF
4: FLOCK  ADVISORY  WRITE 13 08:01:99 0 EOF
5: OFDLCK ADVISORY  WRITE -1 08:01:99 0 EOF
`
	require.Equal(t, 13, lockOwner([]byte(table), unix.Mkdev(8, 1), 99), "those who wait do not count")
	require.Equal(t, 12, lockOwner([]byte(table), unix.Mkdev(8, 2), 99))
	require.Zero(t, lockOwner([]byte(table), unix.Mkdev(8, 3), 99))
}

func TestALockIsAskedForWithoutTakingIt(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lock")
	held, _, err := inspectLock(file)
	require.NoError(t, err)
	require.False(t, held)
	require.NoFileExists(t, file)

	require.NoError(t, os.WriteFile(file, nil, 0o600))
	held, _, err = inspectLock(file)
	require.NoError(t, err)
	require.False(t, held)
	f, err := os.Open(file)
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() })
	require.NoError(t, unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB), "nobody holds it afterwards")
	held, holder, err := inspectLock(file)
	require.NoError(t, err)
	require.True(t, held)
	require.Equal(t, os.Getpid(), holder.pid)
}

func TestThisMachine(t *testing.T) {
	h := thisMachine()
	at, err := h.room(t.TempDir())
	require.NoError(t, err)
	require.Positive(t, at.free)
	require.False(t, at.readOnly)
	_, err = h.room(filepath.Join(t.TempDir(), "none"))
	require.ErrorIs(t, err, unix.ENOENT)
	mine, err := h.files(0)
	require.NoError(t, err)
	require.Positive(t, mine)
	same, err := h.files(os.Getpid())
	require.NoError(t, err)
	require.Equal(t, mine, same, "a Go program raises its limit to the hard one")
	uid, err := h.owner(os.Getpid())
	require.NoError(t, err)
	require.Equal(t, os.Geteuid(), uid)
	require.NoError(t, h.access(t.TempDir(), unix.W_OK))
	require.ErrorIs(t, h.access("/nowhere", unix.R_OK), unix.ENOENT)
	require.Empty(t, processName(-1))
}

func FuzzTables(f *testing.F) {
	f.Add(socketTable, 8088)
	f.Add("4: FLOCK  ADVISORY  WRITE 13 08:01:99 0 EOF\n", 99)
	f.Fuzz(func(t *testing.T, table string, n int) {
		for _, inode := range listening([]byte(table), n) {
			require.Contains(t, table, inode)
		}
		if pid := lockOwner([]byte(table), unix.Mkdev(8, 1), uint64(n)); pid != 0 {
			require.Positive(t, pid)
			require.Contains(t, table, fmt.Sprint(pid))
		}
	})
}

func FuzzKeySet(f *testing.F) {
	for _, s := range []string{keys, `{"keys":[{"kty":"RSA","n":"AQ","e":"AQAB","d":"x"}]}`, `{"keys":[{"kty":"oct"}]}`, `[]`, ``} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		usable, private, err := keySet([]byte(text))
		if err != nil {
			require.Zero(t, usable)
			require.False(t, private)
			return
		}
		require.LessOrEqual(t, usable, strings.Count(text, "{"))
		a := judge([]byte(text))
		require.Equal(t, usable > 0, a.problem == "")
	})
}
