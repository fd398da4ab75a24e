package mp1_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/mp1"
)

func TestURLsOfATransport(t *testing.T) {
	for name, x := range map[string]struct {
		transport mp1.TransportInfo
		urls      []string
		refused   []string
	}{
		"nothing": {transport: mp1.TransportInfo{Type: mp1.TransportRESTHTTP, Protocol: "HTTP"}},
		"uris": {
			transport: transport("REST_HTTP", "HTTP", mp1.EndPointInfo{URIs: []string{"http://a.example/x", "HTTPS://b.example", "ws://c.example:1/"}}),
			urls:      []string{"http://a.example/x", "https://b.example", "ws://c.example:1/"},
		},
		"other uris": {
			transport: transport("MB_PUBSUB", "MQTT", mp1.EndPointInfo{URIs: []string{"mqtt://a.example", "/relative", "http:///nowhere", "http://[::1"}}),
			refused:   []string{"mqtt://a.example", "/relative", "http:///nowhere", "http://[::1"},
		},
		"gRPC over http": {
			transport: transport("RPC", "gRPC", mp1.EndPointInfo{URIs: []string{"http://a.example:50051", "https://b.example", "grpc://c.example"}}),
			urls:      []string{"h2c://a.example:50051", "https://b.example", "grpc://c.example"},
		},
		"addresses": {
			transport: transport("REST_HTTP", "HTTP", mp1.EndPointInfo{Addresses: []mp1.EndPointAddress{{Host: "10.0.0.1", Port: 80}, {Host: "2001:db8::1", Port: 8080}}}),
			urls:      []string{"http://10.0.0.1:80", "http://[2001:db8::1]:8080"},
		},
		"addresses with TLS":        {transport: transport("REST_HTTP", "HTTPS", mp1.EndPointInfo{Addresses: []mp1.EndPointAddress{{Host: "a", Port: 1}}}), urls: []string{"https://a:1"}},
		"addresses of gRPC":         {transport: transport("RPC_STREAMING", "grpc", mp1.EndPointInfo{Addresses: []mp1.EndPointAddress{{Host: "a", Port: 1}}}), urls: []string{"h2c://a:1"}},
		"addresses of gRPC and TLS": {transport: transport("RPC", "grpcs", mp1.EndPointInfo{Addresses: []mp1.EndPointAddress{{Host: "a", Port: 1}}}), urls: []string{"grpcs://a:1"}},
		"addresses of a broker":     {transport: transport("MB_PUBSUB", "AMQP", mp1.EndPointInfo{Addresses: []mp1.EndPointAddress{{Host: "a", Port: 1}}})},
		"a type alone":              {transport: transport("WEBSOCKET", "x", mp1.EndPointInfo{FQDN: []string{"ws.example."}}), urls: []string{"http://ws.example"}},
	} {
		t.Run(name, func(t *testing.T) {
			urls, refused := x.transport.URLs()
			require.Equal(t, x.urls, urls)
			require.Len(t, refused, len(x.refused))
			for _, u := range x.refused {
				require.NotEmpty(t, refused[u], u)
			}
		})
	}
	urls, refused := (*mp1.TransportInfo)(nil).URLs()
	require.Empty(t, urls)
	require.Empty(t, refused)
}

func transport(kind mp1.TransportType, protocol string, e mp1.EndPointInfo) mp1.TransportInfo {
	return mp1.TransportInfo{Type: kind, Protocol: protocol, Endpoint: &e}
}

func TestThroughAGateway(t *testing.T) {
	const base, path = "https://gw.example:8443", "/instances/i"
	for uri, want := range map[string]string{
		"http://a.example/x": "https://gw.example:8443/instances/i", "https://a.example": "https://gw.example:8443/instances/i",
		"ws://a.example": "wss://gw.example:8443/instances/i", "wss://a.example": "wss://gw.example:8443/instances/i",
		"grpc://a.example": "", "h2c://a.example": "", "mqtt://a.example": "",
	} {
		info := transport("REST_HTTP", "HTTP", mp1.EndPointInfo{URIs: []string{uri}})
		require.Equal(t, want, info.ThroughGateway(base, path), uri)
	}
	info := transport("WEBSOCKET", "ws", mp1.EndPointInfo{URIs: []string{"wss://a.example"}})
	require.Equal(t, "ws://127.0.0.1:8000/instances/i", info.ThroughGateway("http://127.0.0.1:8000", path))
}

func TestGRPCAtAHostOfAGateway(t *testing.T) {
	const authority = "i.instances.mec.example:8443"
	for _, x := range []struct{ kind, protocol, uri, secure, plain string }{
		{"RPC", "gRPC", "http://a.example:50051", "https://" + authority, "h2c://" + authority},
		{"RPC", "gRPC", "https://a.example", "https://" + authority, "h2c://" + authority},
		{"RPC", "gRPC", "h2c://a.example", "https://" + authority, "h2c://" + authority},
		{"RPC", "gRPC", "grpc://a.example", "grpcs://" + authority, "grpc://" + authority},
		{"RPC", "other", "grpcs://a.example/x", "grpcs://" + authority, "grpc://" + authority},
		{"REST_HTTP", "HTTP", "https://a.example", "", ""},
		{"WEBSOCKET", "ws", "wss://a.example", "", ""},
		{"MB_PUBSUB", "MQTT", "mqtt://a.example", "", ""},
	} {
		info := transport(mp1.TransportType(x.kind), x.protocol, mp1.EndPointInfo{URIs: []string{x.uri}})
		require.Equal(t, x.secure, info.AtGatewayHost(authority, true), "%v", x)
		require.Equal(t, x.plain, info.AtGatewayHost(authority, false), "%v", x)
		if x.plain != "" {
			require.Empty(t, info.ThroughGateway("https://gw.example", "/instances/i"), "it cannot be called at a path: %v", x)
		}
	}
	addressed := transport("RPC", "grpc", mp1.EndPointInfo{Addresses: []mp1.EndPointAddress{{Host: "10.0.0.1", Port: 1}}})
	require.Equal(t, "https://"+authority, addressed.AtGatewayHost(authority, true))
	require.Empty(t, (&mp1.TransportInfo{Protocol: "gRPC"}).AtGatewayHost(authority, true))
}
