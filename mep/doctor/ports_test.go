package doctor

import (
	"context"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPorts(t *testing.T) {
	each(t, checkPorts, map[string]broken{
		"in use": {
			by: func(t *testing.T, f *fixture) {
				ln, err := net.Listen("tcp", "127.0.0.1:0")
				require.NoError(t, err)
				t.Cleanup(func() { _ = ln.Close() })
				f.Server.Mp1Listen = ln.Addr().String()
			},
			finding: fmt.Sprintf("is in use by process %d (", os.Getpid()), remedy: "ss -ltnp 'sport = ",
		},
		"UDP in use": {
			by: func(t *testing.T, f *fixture) {
				pc, err := net.ListenPacket("udp", "127.0.0.1:0")
				require.NoError(t, err)
				t.Cleanup(func() { _ = pc.Close() })
				f.DNS.Listen = pc.LocalAddr().String()
			},
			finding: "dns.listen 127.0.0.1:", remedy: "another port",
		},
		"in use by somebody who cannot be seen": {
			by: func(_ *testing.T, f *fixture) {
				f.Auth.Listen = "127.0.0.1:81"
				f.host.listener = func(int) process { return process{} }
				before := f.host.listen
				f.host.listen = func(ctx context.Context, addr string) (net.Listener, error) {
					if addr == "127.0.0.1:81" {
						return nil, syscall.EADDRINUSE
					}
					return before(ctx, addr)
				}
			},
			finding: "auth.listen 127.0.0.1:81 is in use by another process", remedy: "another port",
		},
		"not an address of this machine": {
			by: func(t *testing.T, f *fixture) {
				f.Server.Mp1Listen, f.Common.TLSNames = "203.0.113.7:0", []string{"203.0.113.7"}
				f.issue(t, time.Now)
			},
			finding: "mp1.listen 203.0.113.7:0 is not an address of this machine", remedy: "ip addr",
		},
		"the same for two listeners": {
			by: func(t *testing.T, f *fixture) {
				f.Server.Mp1Listen = free(t)
				f.Auth.Listen = f.Server.Mp1Listen
			},
			finding: "has the port of mp1.listen", remedy: "a port of its own",
		},
		"the platform listens elsewhere": {
			of: running, by: func(_ *testing.T, f *fixture) { f.Server.Mp1Listen = "127.0.0.1:1" },
			level: Warn, finding: "mp1.listen is 127.0.0.1:1, but the running platform listens at https://127.0.0.1:8088", remedy: "restart",
		},
	})
	for name, x := range map[string]struct {
		err             error
		finding, remedy string
	}{
		"privileged":           {syscall.EACCES, "may not be bound by user", "CAP_NET_BIND_SERVICE"},
		"a host nobody knows":  {&net.DNSError{Err: "no such host", Name: "edge.invalid"}, "has a host that is not known", "correct the name"},
		"for another reason":   {syscall.EPROTONOSUPPORT, "cannot be bound", "another address"},
		"not an address of it": {syscall.EADDRNOTAVAIL, "is not an address of this machine", "ip addr"},
	} {
		t.Run(name, func(t *testing.T) {
			f := stopped(t)
			f.unbindable(x.err)
			found := alarming(examine(t.Context(), f.Installation, f.host))
			require.Equal(t, []string{"mp1.listen", "mm5.listen", "auth.listen", "ops.listen", "dns.listen", "dns.managementListen", "gateway.listen", "gateway.managementListen"}, subjects(found))
			for _, one := range found {
				require.Equal(t, Fail, one.Level)
				require.Contains(t, one.Finding, x.finding)
				require.Contains(t, one.Remedy, x.remedy)
			}
		})
	}
}

// free returns an address that nobody uses.
func free(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	return ln.Addr().String()
}

func TestPortsOfAddresses(t *testing.T) {
	for addr, want := range map[string]int{":8088": 8088, "[::1]:1": 1, "a:http": 80, "a:0": 0, "a": 0, "a:nothing": 0} {
		require.Equal(t, want, portOf(addr), addr)
	}
	for url, want := range map[string]int{"https://a:8088": 8088, "https://a": 0, "https://[": 0} {
		require.Equal(t, want, portOfURL(url), url)
	}
}
