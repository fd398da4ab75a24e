package blackbox

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/kit/etcdtest"
	"github.com/openmep/mep/tests/harness"
)

// underDomain configures a gateway at which services have host names below mec.example.
func underDomain() harness.Option {
	return harness.Config("tls.names: [\"*.mec.example\", \"*.instances.mec.example\"]\n" +
		"gateway: {serviceDomain: mec.example, advertise: true, publicUrl: \"https://edge.example:8443\", allowLoopback: true}\n")
}

// resolving is a client's transport for which every name is that of the gateway, whose certificate it checks. The names it asked for with
// the TLS handshake are those of the URLs.
func resolving(t *testing.T, p *harness.Process) *http.Transport {
	t.Helper()
	settings, err := p.TLS()
	require.NoError(t, err)
	transport := &http.Transport{
		TLSClientConfig: settings, ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, p.Addr("gateway"))
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

// got is a response that was read.
type got struct {
	status          int
	proto, body     string
	header, trailer http.Header
}

// ask makes a call of a URL at the gateway and reads what comes back. A message makes it one of gRPC.
func ask(t *testing.T, transport *http.Transport, token, url, message string) got {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	require.NoError(t, err)
	if message != "" {
		r, err = http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(grpcFrame(message)))
		require.NoError(t, err)
		r.Header.Set("Content-Type", "application/grpc")
		r.Header.Set("TE", "trailers")
	}
	r.Header.Set("Authorization", "Bearer "+token)
	resp, err := transport.RoundTrip(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return got{resp.StatusCode, resp.Proto, string(body), resp.Header, resp.Trailer}
}

func TestServicesHaveHostNamesAtTheGateway(t *testing.T) {
	t.Parallel()
	hello, other := harness.NewProducer(t, "hello", nil), harness.NewProducer(t, "other", nil)
	p := harness.Start(t, harness.Secure(), underDomain())
	a, _ := appOf(t, p)
	consumer, keys := appOf(t, p)
	token := keys.Fetch(p.Auth(t)).AccessToken
	svc := a.register(served("Hello", hello.URL+"/base"))
	a.register(served("other", other.URL))
	transport := resolving(t, p)
	reached(t, p.Gateway(t).With(token), "/services/Hello/")
	reached(t, p.Gateway(t).With(token), "/services/other/")

	for url, path := range map[string]string{
		"https://hello.mec.example:8443/a%20b/?x=1":                                             "/base/a%20b/",
		"https://HELLO.mec.example/services/other/x":                                            "/base/services/other/x",
		"https://hello.mec.example/mep/mec_service_mgmt/v1/services":                            "/base/mep/mec_service_mgmt/v1/services",
		"https://" + svc.id + ".instances.mec.example:8443/gateway/v1/access_requests":          "/base/gateway/v1/access_requests",
		"https://" + strings.ToUpper(svc.id) + ".instances.mec.example/instances/" + svc.id:     "/base/instances/" + svc.id,
		"https://hello.mec.example/" + strings.Repeat("a", 2000) + "?" + strings.Repeat("b", 9): "/base/" + strings.Repeat("a", 2000),
	} {
		hello.Forget()
		answer := ask(t, transport, token, url, "")
		require.Equal(t, 200, answer.status, "%s: %s", url, answer.body)
		seen := hello.Seen()
		require.Len(t, seen, 1, url)
		require.Equal(t, path, seen[0].Path, url)
		require.Equal(t, []string{consumer.id}, seen[0].Names("X-AppInstanceID"), url)
	}
	for _, url := range []string{"https://none.mec.example/services/other/x", "https://none.mec.example/mep/mec_service_mgmt/v1/services", "https://" + svc.id + ".mec.example/"} {
		answer := ask(t, transport, token, url, "")
		require.Equal(t, 404, answer.status, "%s: %s", url, answer.body)
		require.Equal(t, "application/problem+json", answer.header.Get("Content-Type"))
	}
	require.Equal(t, 401, ask(t, transport, "x"+token, "https://hello.mec.example/", "").status)

	// One connection is good for several hosts, whichever of them it was opened for.
	settings, err := p.TLS()
	require.NoError(t, err)
	settings.ServerName = "hello.mec.example"
	conn, err := tls.Dial("tcp", p.Addr("gateway"), settings)
	require.NoError(t, err)
	defer conn.Close()
	in := bufio.NewReader(conn)
	for _, host := range []string{"other.mec.example", "hello.mec.example", "other.mec.example:8443"} {
		_, err = fmt.Fprintf(conn, "GET /which HTTP/1.1\r\nHost: %s\r\nX-Forwarded-Host: hello.mec.example\r\nAuthorization: Bearer %s\r\n\r\n", host, token)
		require.NoError(t, err)
		resp, err := http.ReadResponse(in, nil)
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, 200, resp.StatusCode, "%s", body)
		require.Contains(t, string(body), `"Producer":"`+strings.SplitN(host, ".", 2)[0]+`"`)
	}
	require.Len(t, p.AccessRecords(t, 3, func(r object) bool {
		host, _ := r["host"].(string)
		return strings.HasPrefix(host, "other.mec.example") || host == "hello.mec.example" && r["path"] == "/services/Hello/which" && r["service"] == "Hello"
	}), 3)

	explained, _ := p.GatewayManagement(t).Post(gatewayRoot+"/explain", object{
		"method": "GET", "url": "https://hello.mec.example/x", "consumer": consumer.id,
	}).Is(200).Object()["reason"].(string)
	require.Equal(t, "allowed", explained)
}

// TestGRPCIsAdvertised: what discovery says can be called as it is.
func TestGRPCIsAdvertised(t *testing.T) {
	t.Parallel()
	producer := harness.NewHTTP2Producer(t, "clock", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status, Grpc-Message")
		_, _ = io.Copy(w, r.Body)
		w.Header().Set("Grpc-Status", "0")
		w.Header().Set("Grpc-Message", r.URL.Path+" "+r.Header.Get("X-AppInstanceID"))
	})
	p := harness.Start(t, harness.Secure(), underDomain())
	a, _ := appOf(t, p)
	consumer, keys := appOf(t, p)
	token := keys.Fetch(p.Auth(t)).AccessToken
	info := served("clock", producer.URL)
	svc := a.register(but(info, "transportInfo", but(info["transportInfo"].(object), "type", "RPC", "protocol", "gRPC")))
	shown := func(c app) string {
		found := c.Get(services + "?ser_name=clock").Is(200).Array()
		require.Len(t, found, 1)
		uris := found[0]["transportInfo"].(object)["endpoint"].(object)["uris"].([]any)
		require.Len(t, uris, 1)
		return uris[0].(string)
	}
	require.Equal(t, producer.URL, shown(a), "the producer sees its own")
	url := shown(consumer)
	require.Equal(t, "https://"+svc.id+".instances.mec.example:8443", url)

	transport := resolving(t, p)
	call := func(url string) got {
		answer := ask(t, transport, token, url+"/test.Clock/Now", "what")
		require.Equal(t, "HTTP/2.0", answer.proto)
		return answer
	}
	for _, u := range []string{url, "https://clock.mec.example"} {
		var answer got
		harness.Eventually(t, "the gateway knows the service", func() error {
			answer = call(u)
			return harness.Not(answer.trailer.Get("Grpc-Status") == "0", "%+v", answer)
		})
		require.Equal(t, string(grpcFrame("what")), answer.body)
		require.Equal(t, "/test.Clock/Now "+consumer.id, answer.trailer.Get("Grpc-Message"))
	}
	require.Equal(t, "5", call("https://none.mec.example").header.Get("Grpc-Status"), "NOT_FOUND")

	// Without a domain it is as it was.
	require.True(t, p.Reload("gateway: {advertise: true, publicUrl: \"https://edge.example:8443\", allowLoopback: true}\n"))
	require.Equal(t, producer.URL, shown(consumer))
	require.False(t, p.Reload("gateway: {serviceDomain: mec.example, advertise: true, publicUrl: \"https://edge.mec.example:8443\", allowLoopback: true}\n"))
	require.Contains(t, p.Log(), "its host edge.mec.example is below gateway.serviceDomain")
}

func TestTheDaemonMepserverAdvertisesHosts(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	server := harness.StartMepserver(t, etcd.Endpoint(), harness.Args("--gateway-advertise", "--gateway-public-url=http://edge.example", "--gateway-service-domain=mec.example"))
	a, consumer := newApp(server.Client(t)), newApp(server.Client(t))
	info := served("clock", "http://192.0.2.1:9702")
	svc := a.register(but(info, "transportInfo", but(info["transportInfo"].(object), "type", "RPC", "protocol", "gRPC")))
	found := consumer.Get(services + "/" + svc.id).Is(200).Object()
	require.Equal(t, []any{"h2c://" + svc.id + ".instances.mec.example:80"}, found["transportInfo"].(object)["endpoint"].(object)["uris"])
}
