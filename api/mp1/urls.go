package mp1

import (
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// URLs are where a transport is reached over HTTP, WebSocket or gRPC: absolute URLs of the schemes http, https, ws, wss, h2c (HTTP/2
// without TLS, which gRPC is then spoken over), grpc and grpcs. What is reached otherwise is left out; refused says of uris of other
// schemes, and of those that are no absolute URIs, why they are.
//
// The uris of an endpoint are taken as they are. Its fqdn and addresses (MEC 011 8.1.5.3) have no scheme: that follows from the
// transport's protocol, and where this says nothing from its type.
func (t *TransportInfo) URLs() (urls []string, refused map[string]string) {
	if t == nil || t.Endpoint == nil {
		return nil, nil
	}
	for _, raw := range t.Endpoint.URIs {
		u, why := t.httpURL(raw)
		if why == "" {
			urls = append(urls, u)
			continue
		}
		if refused == nil {
			refused = make(map[string]string)
		}
		refused[raw] = why
	}
	scheme := t.scheme()
	if scheme == "" {
		return urls, refused
	}
	for _, name := range t.Endpoint.FQDN {
		urls = append(urls, scheme+"://"+strings.TrimSuffix(name, "."))
	}
	for _, a := range t.Endpoint.Addresses {
		urls = append(urls, scheme+"://"+net.JoinHostPort(a.Host, strconv.Itoa(a.Port)))
	}
	return urls, refused
}

// httpURL reads one of the uris of an endpoint, and says why it is not used.
func (t *TransportInfo) httpURL(raw string) (text, why string) {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme == "" {
		return "", "it is not an absolute URI"
	}
	switch u.Scheme {
	case "http":
		if t.grpc() {
			u.Scheme = "h2c"
		}
	case "https", "ws", "wss", "grpc", "grpcs", "h2c":
	default:
		return "", fmt.Sprintf("it is not reached over HTTP: its scheme is %s", u.Scheme)
	}
	if u.Host == "" {
		return "", "it names no host"
	}
	return u.String(), ""
}

func (t *TransportInfo) grpc() bool { return strings.Contains(strings.ToLower(t.Protocol), "grpc") }

// scheme is the scheme of endpoints that have none, "" when the transport is not one of HTTP.
func (t *TransportInfo) scheme() string {
	switch p := strings.ToLower(t.Protocol); {
	case strings.HasPrefix(p, "grpcs"):
		return "grpcs"
	case strings.HasPrefix(p, "https"), strings.HasPrefix(p, "wss"):
		return "https"
	case strings.Contains(p, "grpc"):
		return "h2c"
	case strings.HasPrefix(p, "http"), strings.HasPrefix(p, "ws"), strings.HasPrefix(p, "websocket"):
		return "http"
	}
	switch t.Type {
	case TransportRESTHTTP, TransportWebSocket:
		return "http"
	}
	return ""
}

// ThroughGateway is the URL below which a consumer reaches the transport through a gateway at a base URL and a path, "" when it does not:
// HTTP and WebSocket are reached at the path, gRPC is not, because its clients cannot put a path in front of theirs. It is reached at a
// host: see AtGatewayHost.
func (t *TransportInfo) ThroughGateway(base, path string) string {
	switch t.reachedBy() {
	case "http", "https":
		return base + path
	case "ws", "wss":
		if rest, secure := strings.CutPrefix(base, "https://"); secure {
			return "wss://" + rest + path
		}
		return "ws://" + strings.TrimPrefix(base, "http://") + path
	}
	return ""
}

// AtGatewayHost is the URL at which a consumer reaches a transport of gRPC through a gateway that knows it by the host of the call, "" for
// other transports. The authority is that host and the port; secure says that the gateway speaks TLS. The scheme is of the kind the
// transport itself has: grpcs or grpc, else https or h2c, which is HTTP/2 without TLS.
func (t *TransportInfo) AtGatewayHost(authority string, secure bool) string {
	switch kind := t.reachedBy(); {
	case kind == "grpcs" && secure:
		return "grpcs://" + authority
	case kind == "grpcs":
		return "grpc://" + authority
	case kind == "h2c" && secure:
		return "https://" + authority
	case kind == "h2c":
		return "h2c://" + authority
	}
	return ""
}

// reachedBy is the scheme of the first URL of the transport; of gRPC it is grpcs or h2c, whether with TLS or without.
func (t *TransportInfo) reachedBy() string {
	urls, _ := t.URLs()
	if len(urls) == 0 {
		return ""
	}
	scheme, _, _ := strings.Cut(urls[0], "://")
	switch {
	case scheme == "grpc":
		return "grpcs"
	case t.grpc() && scheme == "https":
		return "h2c"
	}
	return scheme
}
