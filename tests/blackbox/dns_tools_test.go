package blackbox

import (
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

// asTools splits an address as dig and kdig want it.
func asTools(t *testing.T, addr string) []string {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	return []string{"@" + host, "-p", port}
}

func TestDig(t *testing.T) {
	t.Parallel()
	dig := harness.Tool(t, "dig", "bind9-dnsutils")
	p := harness.Start(t, owning())
	withRules(t, p, rule("d", "www.mec.example", "192.0.2.1"), rule("d6", "www.mec.example", "2001:db8::1"))
	addresses := []any{}
	for i := range 200 {
		addresses = append(addresses, fmt.Sprintf("10.0.0.%d", i+1))
	}
	p.DNSManagement(t).Post(rrecord, []object{record("big.mec.example", "A", addresses...), record("_sip._udp.mec.example", "SRV", "1 2 5060 www.mec.example")}).Is(200)
	ask := func(args ...string) string {
		t.Helper()
		out := harness.RunTool(t, dig, append(asTools(t, p.Addr("dns")), args...)...)
		require.NotContains(t, out, "Warning", "dig has nothing to complain of")
		require.NotContains(t, out, "BADCOOKIE")
		return out
	}
	short := func(args ...string) []string { return strings.Fields(ask(append([]string{"+short"}, args...)...)) }
	require.Equal(t, []string{"192.0.2.1"}, short("www.mec.example"))
	require.Equal(t, []string{"192.0.2.1"}, short("www.mec.example", "A", "+tcp"))
	require.Equal(t, []string{"192.0.2.1"}, short("www.mec.example", "A", "+noedns"))
	require.Equal(t, []string{"2001:db8::1"}, short("WWW.mec.EXAMPLE", "AAAA"))
	require.Equal(t, []string{"www.mec.example."}, short("-x", "192.0.2.1"))
	require.Equal(t, []string{"www.mec.example."}, short("-x", "2001:db8::1"))
	require.Equal(t, []string{"1", "2", "5060", "www.mec.example."}, short("_sip._udp.mec.example", "SRV"))
	require.Len(t, short("big.mec.example"), 200, "it comes back over TCP")
	require.Contains(t, ask("big.mec.example", "+ignore"), "flags: qr aa tc")
	require.Contains(t, ask("big.mec.example", "+bufsize=4096", "+ignore"), "flags: qr aa tc", "dns.udpSize is 1232")
	require.Contains(t, ask("www.mec.example"), "(good)", "the cookie is as RFC 9018 says")
	require.Contains(t, ask("www.mec.example", "+cookie=0011223344556677"), "COOKIE: 0011223344556677")
	require.Contains(t, ask("www.mec.example", "ANY", "+notcp"), `"RFC8482" ""`)
	require.Contains(t, ask("none.mec.example"), "status: NXDOMAIN")
	require.Contains(t, ask("www.mec.example", "MX"), "status: NOERROR")
	require.Contains(t, ask("www.example"), "status: REFUSED")
	require.Contains(t, ask("www.example"), "EDE: 20 (Not Authoritative)")
	require.Contains(t, ask("www.mec.example", "+edns=1", "+noednsneg"), "status: BADVERS")
	require.Contains(t, ask("www.mec.example", "+opcode=STATUS"), "status: NOTIMP")
	require.Contains(t, ask("www.mec.example", "+header-only", "+nocookie"), "status: FORMERR")
	require.Contains(t, ask("version.bind", "TXT", "CH"), "status: REFUSED")
	require.Contains(t, ask("mec.example", "AXFR"), "Transfer failed")
	require.Contains(t, ask("www.mec.example", "+dnssec", "+subnet=192.0.2.0/24", "+nsid", "+expire", "+padding=128"), "192.0.2.1")
	require.Contains(t, ask("www.mec.example", "+ednsopt=65001:abcd", "+zflag", "+adflag", "+cdflag"), "192.0.2.1")
	require.Contains(t, ask("mec.example", "SOA", "+multi"), "hostmaster.mec.example.")
}

func TestKdigOverTLS(t *testing.T) {
	t.Parallel()
	kdig := harness.Tool(t, "kdig", "knot-dnsutils")
	listen := harness.FreeAddr(t)
	p := harness.Start(t, harness.Secure(), owning(), harness.Args("--dns-tls-listen", listen))
	p.DNSManagement(t).Post(rrecord, record("www.mec.example", "A", "192.0.2.1")).Is(200)
	require.Equal(t, "tls://"+listen, p.URL("dns-tls"))
	ask := func(addr string, args ...string) string {
		t.Helper()
		out := harness.RunTool(t, kdig, append(asTools(t, addr), append(args, "www.mec.example", "A")...)...)
		require.NotContains(t, out, "WARNING")
		require.Contains(t, out, "192.0.2.1")
		return out
	}
	require.Contains(t, ask(listen, "+tls-ca="+p.CAFile(), "+tls-hostname=127.0.0.1"), "TLS session (TLS1.3)")
	ask(listen, "+tls-ca="+p.CAFile(), "+tls-hostname=localhost", "+keepopen")
	ask(listen, "+tls", "+padding")
	ask(p.Addr("dns"), "+tcp", "+bufsize=512")
	ask(p.Addr("dns"), "+cookie", "+bufsize=4096", "+nsid")
	ask(p.Addr("dns"), "+cookie=0011223344556677", "+noedns", "+edns")

	// The same with a client of Go's, whose name for the protocol is checked, and whom nobody else is taken for.
	settings, err := p.TLS()
	require.NoError(t, err)
	settings.NextProtos = []string{"dot"}
	p.DNS(t).TLS(listen, settings).Ask("www.mec.example", "A").Holds("NOERROR", "A 192.0.2.1")
	settings.NextProtos = []string{"h2"}
	if s, err := p.DNS(t).TLS(listen, settings).Session(); err == nil {
		_, err = s.Try(harness.Question("www.mec.example", "A"), harness.Patience)
		require.Error(t, err, "somebody who means HTTP is not answered (RFC 9325)")
		s.Close()
	}
}

func TestKdigIsRefusedByACertificateThatIsNotTrusted(t *testing.T) {
	t.Parallel()
	kdig := harness.Tool(t, "kdig", "knot-dnsutils")
	listen := harness.FreeAddr(t)
	harness.Start(t, harness.Secure(), owning(), harness.Args("--dns-tls-listen", listen))
	other := newAuthority(t, "other")
	out, err := exec.CommandContext(t.Context(), kdig, append(asTools(t, listen), "+tls-ca="+other.file, "+tls-hostname=127.0.0.1", "mec.example")...).CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "Error in the certificate")
}

// The resolver of the C library, which asks what /etc/resolv.conf names at port 53.
func TestGetentHosts(t *testing.T) {
	t.Parallel()
	getent, unshare, ip := harness.Tool(t, "getent", "libc-bin"), harness.Tool(t, "unshare", "util-linux"), harness.Tool(t, "ip", "iproute2")
	// With a process namespace, too, nothing is left of it whatever happens.
	apart := []string{"--net", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"}
	if out, err := exec.CommandContext(t.Context(), unshare, append(slices.Clone(apart), "true")...).CombinedOutput(); err != nil {
		t.Skipf("namespaces cannot be made here: %v %s", err, out)
	}
	dir := t.TempDir()
	resolv := file(t, "resolv.conf", "nameserver 127.0.0.1\nsearch mec.example\noptions timeout:5 attempts:4\n")
	// The platform runs inside, with a directory of its own, and at port 53.
	script := fmt.Sprintf(`set -e
%[1]s link set lo up
mount --bind %[2]s /etc/resolv.conf
%[3]s run --dev --data-dir %[4]s/data --dns-listen 127.0.0.1:53 --dns-zones mec.example,2.0.192.in-addr.arpa >%[4]s/log 2>&1 &
mep=$!
trap 'kill $mep; wait $mep' EXIT
for i in $(seq 400); do %[3]s healthcheck --dev >/dev/null 2>&1 && break; sleep 0.05; done
add() { %[5]s; }
add '{"name":"www.mec.example","type":"A","ttl":60,"rData":["192.0.2.1"]}'
add '{"name":"www.mec.example","type":"AAAA","ttl":60,"rData":["2001:db8::1"]}'
add '{"name":"four.mec.example","type":"A","ttl":60,"rData":["192.0.2.2"]}'
add '{"name":"alias.mec.example","type":"CNAME","ttl":60,"rData":["four.mec.example"]}'
echo "www $(%[6]s ahosts www.mec.example | tr -s ' \n' ' ')"
echo "four $(%[6]s hosts four.mec.example | tr -s ' \n' ' ')"
echo "short $(%[6]s hosts four | tr -s ' \n' ' ')"
echo "alias $(%[6]s hosts alias.mec.example | tr -s ' \n' ' ')"
echo "reverse $(%[6]s hosts 192.0.2.2 | tr -s ' \n' ' ')"
%[6]s hosts none.mec.example && exit 1
echo "none $?"
`, ip, resolv, harness.Program(t, "mep"), dir, addWith(t), getent)
	out := harness.RunTool(t, unshare, append(apart, "sh", "-c", script)...)
	for _, want := range []string{
		"192.0.2.1 STREAM", "2001:db8::1 STREAM", "four 192.0.2.2 four.mec.example", "short 192.0.2.2 four.mec.example",
		"alias 192.0.2.2 four.mec.example alias.mec.example", "reverse 192.0.2.2 four.mec.example", "none 2",
	} {
		require.Contains(t, out, want, "%s", written(t, filepath.Join(dir, "log")))
	}
}

// addWith is a command that gives its first argument to the DNS management at its usual address.
func addWith(t *testing.T) string {
	t.Helper()
	return harness.Tool(t, "curl", "curl") + ` -sf -o /dev/null -H 'Content-Type: application/json' -d "$1" http://127.0.0.1:8081` + rrecord
}

func TestTheDNSServerOnTheCommandLine(t *testing.T) {
	t.Parallel()
	up := harness.NewUpstream(t)
	for name, options := range map[string][]harness.Option{"in development": nil, "in operation": {harness.Secure()}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := harness.Start(t, append(options, owning(), forwarding(up))...)
			c := p.DNSManagement(t)
			c.Post(rrecord, []object{record("www.mec.example", "A", "192.0.2.1"), record("*.wild.mec.example", "TXT", `a "b"`)}).Is(200)
			mep := func(args ...string) harness.Outcome {
				t.Helper()
				args = append([]string{"dns"}, args...)
				if args[1] == "query" {
					args = append(args, "--server", p.Addr("dns"))
				} else if options == nil {
					args = append(args, "--dev", "--url", p.URL("dns-management"))
				} else {
					args = append(args, "--data-dir", p.DataDir)
				}
				return harness.Run(t, "mep", args)
			}
			says := func(text string, args ...string) {
				t.Helper()
				out := mep(args...)
				require.Zero(t, out.Code, out.Output)
				require.Contains(t, out.Output, text)
			}
			says("192.0.2.1", "query", "www.mec.example")
			says("192.0.2.1", "query", "WWW.mec.example", "a", "--tcp")
			says("NXDOMAIN", "query", "none.mec.example")
			says("192.0.2.53", "query", "www.example")
			says("www.mec.example.", "query", "192.0.2.1")
			says("www.mec.example.", "list")
			says(`\"b\"`, "list", "wild.mec.example")
			says(`"rData"`, "list", "--json")
			says("*.wild.mec.example.", "trace", "x.wild.mec.example", "TXT")
			says("cache", "trace", "www.example")
			says("removed from the cache: 1", "flush", "www.example")
			says("removed from the cache: 0", "flush")
			says(`"entries": 0`, "flush", "mec.example", "--below", "--json")
			for _, args := range [][]string{{"query", "a..b"}, {"query", "a", "NOTYPE"}, {"list", "a..b"}, {"trace"}, {"nothing"}, {"flush", "a", "b"}} {
				out := mep(args...)
				if args[0] == "nothing" {
					continue // cobra shows what there is
				}
				require.Equal(t, 1, out.Code, "%v: %s", args, out.Output)
			}
			p.Stop()
			for _, args := range [][]string{{"list"}, {"trace", "a"}, {"flush"}, {"query", "a"}} {
				out := mep(args...)
				require.Equal(t, 1, out.Code)
				require.Contains(t, out.Output, "is the platform running", "%v", args)
			}
		})
	}
}
