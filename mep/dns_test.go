package mep

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	api "github.com/openmep/mep/api/dns"
)

// mepDNS runs a command line that begins with mep dns.
func mepDNS(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := Platform().Command()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetArgs(append([]string{"dns"}, args...))
	err := cmd.ExecuteContext(context.Background())
	return out.String(), err
}

// management stands in for the DNS management: it gives a response for each method and path, and records the requests.
type management struct {
	answers map[string]string
	asked   []string
	token   string
}

func (m *management) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/oauth2/token" {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"access_token":"let-me-in","token_type":"Bearer","expires_in":60}`)
		return
	}
	m.asked = append(m.asked, r.Method+" "+strings.TrimPrefix(r.URL.RequestURI(), api.Base))
	m.token = r.Header.Get("Authorization")
	body, ok := m.answers[r.Method+" "+strings.TrimPrefix(r.URL.Path, api.Base)]
	if !ok {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"title":"Bad request","status":400,"detail":"name must be a domain name"}`)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, body)
}

func manageable(t *testing.T, answers map[string]string) (*management, string) {
	t.Helper()
	m := &management{answers: answers}
	server := httptest.NewServer(m)
	t.Cleanup(server.Close)
	return m, strings.TrimPrefix(server.URL, "http://")
}

func TestRecordsAreListed(t *testing.T) {
	m, addr := manageable(t, map[string]string{"GET /rrecord": `[
		{"name":"a.example.","type":"A","ttl":30,"rData":["192.0.2.1","192.0.2.2"],"zone":"."},
		{"name":"b.example.","type":"TXT","ttl":5,"rData":["two  words"],"zone":"example.","view":"ue"},
		{"name":"c.example.","type":"CNAME","ttl":5,"rData":["a.example."],"zone":"example.","notServed":"a rule has an address"}]`})
	out, err := mepDNS(t, "list", "--dev", "--dns-management-listen", addr)
	require.NoError(t, err)
	require.Equal(t, strings.TrimLeft(`
NAME        TTL  TYPE   DATA          ZONE      VIEW
a.example.  30   A      192.0.2.1     .         -
a.example.  30   A      192.0.2.2     .         -
b.example.  5    TXT    "two  words"  example.  ue
c.example.  5    CNAME  a.example.    example.  -  (not answered: a rule has an address)
`, "\n"), out)
	require.Empty(t, m.token, "nobody asks for a token with --dev")

	out, err = mepDNS(t, "list", "example", "--type", "a", "--zone", ".", "--view", "", "--dev", "--url", "http://"+addr, "--json")
	require.NoError(t, err)
	var list []api.Record
	require.NoError(t, json.Unmarshal([]byte(out), &list))
	require.Len(t, list, 3)
	require.Equal(t, []string{"GET /rrecord?limit=1000", "GET /rrecord?below=example&limit=1000&type=A&view=&zone=."}, m.asked)

	m.answers["GET /rrecord"] = "[]"
	out, err = mepDNS(t, "list", "--dev", "--url", "http://"+addr, "--json")
	require.NoError(t, err)
	require.Equal(t, "[]\n", out)
}

func TestTheManagementIsFoundByTheCredentials(t *testing.T) {
	m, addr := manageable(t, map[string]string{"POST /cache/flush": `{"entries":4}`})
	dir := t.TempDir()
	write := func(name, urls string) string {
		file := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
		require.NoError(t, os.WriteFile(file, []byte(`{"accessKeyId":"`+strings.Repeat("a", 20)+`","secretKey":"`+strings.Repeat("s", 64)+
			`","scopes":["mm5"],"urls":`+urls+`}`), 0o600))
		return file
	}
	write("bootstrap/mepm.json", `{"auth":"http://`+addr+`","dns":"http://`+addr+`"}`)
	old := write("old.json", `{"auth":"http://`+addr+`"}`)

	out, err := mepDNS(t, "flush", "www.example", "--below", "--data-dir", dir)
	require.NoError(t, err)
	require.Equal(t, "removed from the cache: 4\n", out)
	require.Equal(t, "Bearer let-me-in", m.token)
	out, err = mepDNS(t, "flush", "--json", "--credentials", old, "--url", "http://"+addr)
	require.NoError(t, err)
	require.JSONEq(t, `{"entries":4}`, out)
	require.Equal(t, []string{"POST /cache/flush?below=www.example", "POST /cache/flush"}, m.asked)

	for name, x := range map[string]struct {
		args []string
		want string
	}{
		"no URL":         {[]string{"flush", "--credentials", old}, "does not say where the DNS management is: say so with --url"},
		"no credentials": {[]string{"flush", "--data-dir", t.TempDir()}, "name the file that was given out for this client"},
		"no CA":          {[]string{"flush", "--data-dir", dir, "--ca", filepath.Join(dir, "none")}, "CA certificates of the platform"},
		"below nothing":  {[]string{"flush", "--below", "--data-dir", dir}, "--below needs a NAME"},
		"refused":        {[]string{"list", "--data-dir", dir}, "400 Bad request: name must be a domain name"},
		"nobody there":   {[]string{"list", "--dev", "--url", "http://127.0.0.1:1"}, "is the platform running, and dns.managementListen or --url right?"},
		"no server":      {[]string{"list", "--dev", "--dns-listen", "off"}, "dns.listen is off"},
		"no address":     {[]string{"trace", "a", "--dev", "--client", "me"}, `--client must be an IPv4 or IPv6 address, not "me"`},
		"no name":        {[]string{"trace", "--dev"}, "accepts between 1 and 2 arg"},
		"bad settings":   {[]string{"list", "--dns-ttl", "soon"}, "dns-ttl"},
	} {
		_, err := mepDNS(t, x.args...)
		require.ErrorContains(t, err, x.want, name)
	}
}

func TestAnAnswerIsTraced(t *testing.T) {
	m, addr := manageable(t, map[string]string{"GET /trace": `{"name":"www.example.","type":"AAAA","client":"192.0.2.9","view":"ue","source":"table",
		"zone":"example.","rcode":"NOERROR","authoritative":true,"wildcard":"*.example.","steps":["the view is ue","a wildcard matches"],
		"records":[{"record":"www.example.\t30\tIN\tAAAA\t2001:db8::1","origin":"r1"},{"record":"x.\t1\tIN\tTXT\t\"a  b\""}]}`})
	out, err := mepDNS(t, "trace", "www.example", "AAAA", "--client", "192.0.2.9", "--dev", "--url", "http://"+addr)
	require.NoError(t, err)
	require.Equal(t, strings.TrimLeft(`
question  www.example. AAAA
client    192.0.2.9
view      ue
zone      example.
source    table
answer    NOERROR, authoritative
wildcard  *.example.
steps     the view is ue
          a wildcard matches

RECORD                               ORIGIN
www.example. 30 IN AAAA 2001:db8::1  r1
x. 1 IN TXT "a  b"                   -
`, "\n"), out)
	require.Equal(t, []string{"GET /trace?client=192.0.2.9&name=www.example&type=AAAA"}, m.asked)

	m.answers["GET /trace"] = `{"name":"x.","type":"A","client":"::1","source":"none","rcode":"REFUSED","authoritative":false,"steps":[],"records":[]}`
	out, err = mepDNS(t, "trace", "x", "--dev", "--url", "http://"+addr)
	require.NoError(t, err)
	require.Equal(t, "question  x. A\nclient    ::1\nsource    none\nanswer    REFUSED\n", out)
	out, err = mepDNS(t, "trace", "x", "--json", "--dev", "--url", "http://"+addr)
	require.NoError(t, err)
	require.JSONEq(t, m.answers["GET /trace"], out)
}

// nameServer serves DNS over UDP, TCP and TLS on one port each, and returns their addresses and the certificate.
func nameServer(t *testing.T) (plain, overTLS, caFile string) {
	t.Helper()
	answer := func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.Authoritative = true
		m.SetEdns0(1232, false)
		name := q.Question[0].Name
		switch {
		case name == "none.":
			m.Rcode = dns.RcodeNameError
		case name == "long." && w.LocalAddr().Network() == "udp":
			m.Truncated = true
		default:
			h := dns.RR_Header{Name: name, Rrtype: q.Question[0].Qtype, Class: dns.ClassINET, Ttl: 30}
			switch h.Rrtype {
			case dns.TypeA:
				m.Answer = append(m.Answer, &dns.A{Hdr: h, A: net.IPv4(192, 0, 2, 1)})
			case dns.TypePTR:
				m.Answer = append(m.Answer, &dns.PTR{Hdr: h, Ptr: "a.example."})
			}
		}
		_ = w.WriteMsg(m)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	pc, err := net.ListenPacket("udp", ln.Addr().String())
	require.NoError(t, err)
	// The certificate of web is for 127.0.0.1.
	web := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(web.Close)
	caFile = filepath.Join(t.TempDir(), "ca.crt")
	require.NoError(t, os.WriteFile(caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw}), 0o600))
	secure, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	for _, s := range []*dns.Server{
		{Listener: ln, Handler: dns.HandlerFunc(answer)}, {PacketConn: pc, Handler: dns.HandlerFunc(answer)},
		{Listener: tls.NewListener(secure, &tls.Config{Certificates: web.TLS.Certificates, MinVersion: tls.VersionTLS12}), Handler: dns.HandlerFunc(answer)},
	} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { _ = s.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	return ln.Addr().String(), secure.Addr().String(), caFile
}

func TestADNSServerIsAsked(t *testing.T) {
	plain, overTLS, caFile := nameServer(t)
	host, port, _ := net.SplitHostPort(plain)
	for name, x := range map[string]struct {
		args []string
		want []string
	}{
		"by the settings": {[]string{"www.example", "--dev", "--dns-listen", plain}, []string{
			"status: NOERROR", ";www.example.\tIN\t A", "www.example.\t30\tIN\tA\t192.0.2.1", ";; SERVER: " + host + "#" + port + " (UDP)",
		}},
		"by name":            {[]string{"none", "--server", plain}, []string{"status: NXDOMAIN", "flags: qr aa rd"}},
		"over TCP":           {[]string{"www.example.", "a", "--server", plain, "--tcp"}, []string{"192.0.2.1", "(TCP)"}},
		"too long for UDP":   {[]string{"long", "--server", plain}, []string{";; Truncated, asked again over TCP.", "192.0.2.1", "(TCP)"}},
		"over TLS":           {[]string{"www.example", "--server", overTLS, "--tls", "--ca", caFile}, []string{"192.0.2.1", "(TLS)"}},
		"an address":         {[]string{"192.0.2.7", "--server", plain}, []string{"7.2.0.192.in-addr.arpa.\t30\tIN\tPTR\ta.example."}},
		"a type by number":   {[]string{"www.example", "TYPE65280", "--server", plain}, []string{";www.example.\tIN\t TYPE65280", "ANSWER: 0"}},
		"address of IPv6":    {[]string{"2001:db8::1", "ANY", "--server", plain}, []string{"8.b.d.0.1.0.0.2.ip6.arpa.\tIN\t ANY"}},
		"everywhere on host": {[]string{"www.example", "--dns-listen", ":" + port}, []string{"SERVER: 127.0.0.1#" + port}},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := mepDNS(t, append([]string{"query"}, x.args...)...)
			require.NoError(t, err)
			for _, want := range x.want {
				require.Contains(t, out, want)
			}
		})
	}
	out, err := mepDNS(t, "query", "www.example", "--server", plain, "--json")
	require.NoError(t, err)
	var got answered
	require.NoError(t, json.Unmarshal([]byte(out), &got))
	require.Equal(t, []string{"www.example. 30 IN A 192.0.2.1"}, got.Answer)
	require.Equal(t, "NOERROR", got.RCode)
	require.True(t, got.Authoritative)
	require.Empty(t, got.Additional, "the OPT record is none")
}

func TestQuestionsThatCannotBeAsked(t *testing.T) {
	_, overTLS, _ := nameServer(t)
	gone, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, gone.Close())
	for name, x := range map[string]struct {
		args []string
		want string
	}{
		"no name":        {[]string{"a..b"}, `"a..b" is not a domain name`},
		"no type":        {[]string{"a", "HOST"}, `"HOST" is not a type of records`},
		"no server":      {[]string{"a", "--dns-listen", "off"}, "dns.listen is off: name the DNS server with --server"},
		"no TLS":         {[]string{"a", "--tls"}, "dns.tlsListen is off"},
		"TCP and TLS":    {[]string{"a", "--tls", "--tcp"}, "none of the others can be"},
		"no CA":          {[]string{"a", "--tls", "--server", overTLS, "--ca", "none"}, "CA certificates of the DNS server"},
		"unknown CA":     {[]string{"a", "--tls", "--server", overTLS}, "certificate"},
		"nobody there":   {[]string{"a", "--server", gone.LocalAddr().String()}, "is the platform running, and dns.listen or --server right?"},
		"nothing at all": {nil, "accepts between 1 and 2 arg"},
	} {
		_, err := mepDNS(t, append([]string{"query"}, x.args...)...)
		require.ErrorContains(t, err, x.want, name)
	}
}

func TestListenersAsThisMachineReachesThem(t *testing.T) {
	for listen, want := range map[string]string{
		":53": "127.0.0.1:53", "0.0.0.0:53": "127.0.0.1:53", "[::]:53": "[::1]:53", "192.0.2.1:53": "192.0.2.1:53", "mec:53": "mec:53", "off": "off",
	} {
		require.Equal(t, want, reachable(listen))
	}
}
