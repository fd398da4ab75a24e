package mp1

import (
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// URLs returns where the transport is reached over HTTP, WebSocket or gRPC: absolute URLs with the scheme http, https, ws, wss,
// h2c (HTTP/2 without TLS, for gRPC), grpc or grpcs. Other endpoints are omitted; refused gives the reasons for omitted uris,
// which have another scheme, no host, or are not absolute.
//
// The uris of an endpoint are used as they are, except that http becomes h2c for gRPC. Its fqdn and addresses (MEC 011 8.1.5.3)
// have no scheme: it is derived from the transport's protocol or, failing that, from its type.
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

// httpURL parses one of the uris of an endpoint; why is the reason for not using it, or "".
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

// scheme returns the scheme for endpoints that have none, or "" if the transport is not HTTP-based.
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

// ThroughGateway returns the URL below which a consumer reaches the transport through a gateway at the given base URL and path.
// HTTP and WebSocket transports are reached at the path. For others it returns ""; this includes gRPC, whose clients cannot
// prefix paths: see AtGatewayHost.
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

// AtGatewayHost returns the URL at which a consumer reaches a gRPC transport through a gateway that routes it by the host of
// the call, or "" for other transports. authority is that host with the port; secure says whether the gateway speaks TLS. The
// kind of scheme is that of the transport itself: grpcs or grpc, or else https or h2c, which is HTTP/2 without TLS.
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

// reachedBy returns the scheme of the first URL of the transport; for gRPC, grpcs or h2c, regardless of TLS.
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
