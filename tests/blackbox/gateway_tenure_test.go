package blackbox

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

// socket is a WebSocket through the gateway to what sends back what it gets.
type socket struct {
	net.Conn
	in *bufio.Reader
}

func openSocket(t *testing.T, p *harness.Process, path, token string) *socket {
	t.Helper()
	conn, in, status, _ := upgrade(t, p, path, "Authorization: Bearer "+token+"\r\n")
	require.Equal(t, http.StatusSwitchingProtocols, status)
	return &socket{conn, in}
}

// works sends a frame as a server would, which comes back as one of a server.
func (s *socket) works(t *testing.T) {
	t.Helper()
	_, err := io.WriteString(s, "\x81\x05hello")
	require.NoError(t, err)
	b := make([]byte, 7)
	_, err = io.ReadFull(s.in, b)
	require.NoError(t, err)
	require.Equal(t, "\x81\x05hello", string(b))
}

// closed waits for the close frame, and returns its status code.
func (s *socket) closed(t *testing.T) int {
	t.Helper()
	b := make([]byte, 4)
	_, err := io.ReadFull(s.in, b)
	require.NoError(t, err)
	require.Equal(t, byte(0x88), b[0])
	_, err = io.ReadFull(s.in, make([]byte, b[1]-2))
	require.NoError(t, err)
	_, err = io.WriteString(s, "\x88\x82\x00\x00\x00\x00\x03\xf0")
	require.NoError(t, err)
	_, err = s.in.ReadByte()
	require.ErrorIs(t, err, io.EOF)
	return int(binary.BigEndian.Uint16(b[2:]))
}

// TestCallsUnderWayEndWithTheRightToThem takes back a grant, a token and a service while WebSockets and a stream are open.
func TestCallsUnderWayEndWithTheRightToThem(t *testing.T) {
	t.Parallel()
	sends := echoUpgraded(t)
	producer := harness.NewProducer(t, "hello", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/events" {
			sends(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: 1\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	p := harness.Start(t, harness.Secure(), toLoopback())
	ownerApp, _ := appOf(t, p)
	oneApp, oneKeys := appOf(t, p)
	otherApp, otherKeys := appOf(t, p)
	svc := ownerApp.register(shared("hello", producer.URL))
	m := p.GatewayManagement(t)
	access := make(map[string]string)
	for _, consumer := range []string{oneApp.id, otherApp.id} {
		var made object
		m.Post(accessRequests, object{"serName": "hello", "consumer": consumer}).Is(201).Into(&made)
		access[consumer] = accessRequests + "/" + made["id"].(string)
		m.Put(access[consumer], object{"state": "GRANTED"}).Is(200)
	}
	one, other := oneKeys.Fetch(p.Auth(t)), otherKeys.Fetch(p.Auth(t))
	answered(t, p.Gateway(t).With(one.AccessToken), http.StatusUpgradeRequired, "/services/hello/")
	mine, others := openSocket(t, p, "/services/hello/", one.AccessToken), openSocket(t, p, "/instances/"+svc.id+"/", other.AccessToken)
	events := streamOf(t, p, "/services/hello/events", one.AccessToken)

	m.Put(access[oneApp.id], object{"state": "REFUSED"}).Is(200)
	require.Equal(t, 1008, mine.closed(t))
	_, err := io.ReadAll(events)
	require.Error(t, err, "it does not look whole")
	others.works(t)
	p.AccessRecords(t, 2, func(r harness.Object) bool { return r["reason"] == "ended-access" && r["consumer"] == oneApp.id })
	entry := auditOf(t, p, "the end", func(e object) bool { return e["action"] == "access.end" })
	require.Equal(t, oneApp.id, entry["caller"])
	auditOf(t, p, "what began too late", func(e object) bool {
		p.Gateway(t).With(one.AccessToken).Get("/services/hello/").Problem(403)
		return e["action"] == "access.deny" && e["target"] == "GET /services/hello"
	})

	m.Put(access[oneApp.id], object{"state": "GRANTED"}).Is(200)
	mine = openSocket(t, p, "/services/hello/", one.AccessToken)
	mine.works(t)
	p.Auth(t).Post("/oauth2/revoke", harness.Form("token", one.AccessToken), harness.AsForm(), oneKeys.Basic()).Is(200)
	require.Equal(t, 1008, mine.closed(t))
	p.AccessRecords(t, 1, func(r harness.Object) bool { return r["reason"] == "ended-credential" })
	others.works(t)

	ownerApp.replace(svc.id, but(shared("hello", producer.URL), "state", "INACTIVE"))
	require.Equal(t, 1001, others.closed(t))
	p.AccessRecords(t, 1, func(r harness.Object) bool { return r["reason"] == "ended-instance" && r["instance"] == svc.id })
	require.Contains(t, string(p.Ops(t).Get("/metrics").Is(200).Body), `mep_gateway_calls_ended_total{reason="access"} 2`)
}

// streamOf begins to read events.
func streamOf(t *testing.T, p *harness.Process, path, token string) io.Reader {
	t.Helper()
	settings, err := p.TLS()
	require.NoError(t, err)
	transport := &http.Transport{TLSClientConfig: settings, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL("gateway")+path, nil)
	require.NoError(t, err)
	r.Header.Set("Authorization", "Bearer "+token)
	resp, err := transport.RoundTrip(r)
	require.NoError(t, err)
	t.Cleanup(func() { _ = resp.Body.Close() })
	in := bufio.NewReader(resp.Body)
	first, err := in.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "data: 1", strings.TrimSpace(first))
	return in
}
