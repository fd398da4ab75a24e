package upstream

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/openmep/mep/kit/netguard"
)

// target is a parsed endpoint URL.
type target struct {
	// scheme is http or https. h2c says that http means HTTP/2 without TLS.
	scheme string
	h2c    bool
	// host is the authority in lower case.
	host string
	// path and escaped are put in front of the paths of requests, and have no trailing slash. bare and bareEscaped are the path for
	// requests that have none.
	path, escaped     string
	bare, bareEscaped string
	query             string
	// literal is the address and port: 127.0.0.1 for localhost, invalid for other names.
	literal netip.AddrPort
	// address is the host and port to dial, with names in ASCII.
	address string
}

func parseTarget(raw string) (*target, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%q is not a URL", raw)
	}
	t := &target{host: strings.ToLower(u.Host), query: u.RawQuery}
	switch u.Scheme {
	case "http", "ws":
		t.scheme = "http"
	case "https", "wss", "grpcs":
		t.scheme = "https"
	case "h2c", "grpc":
		t.scheme, t.h2c = "http", true
	default:
		return nil, fmt.Errorf("%q must be a URL of the scheme http, https, h2c, ws, wss, grpc or grpcs", raw)
	}
	switch {
	case u.Hostname() == "":
		return nil, fmt.Errorf("%q must name a host", raw)
	case u.User != nil:
		return nil, errors.New("the URL must not carry a user name or password")
	case u.Fragment != "":
		return nil, fmt.Errorf("%q must not have a fragment", raw)
	}
	port, err := netguard.PortOf(u)
	if err != nil {
		return nil, fmt.Errorf("%q %w", raw, err)
	}
	if isLocalhost(u.Hostname()) {
		t.literal = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
	} else if a, err := netip.ParseAddr(u.Hostname()); err == nil {
		t.literal = netip.AddrPortFrom(a, port)
	}
	name, err := httpguts.PunycodeHostPort(strings.ToLower(u.Hostname()))
	if err != nil {
		return nil, fmt.Errorf("%q must name a host", raw)
	}
	t.address = net.JoinHostPort(name, strconv.Itoa(int(port)))
	t.bare, t.bareEscaped = u.Path, u.EscapedPath()
	t.path, t.escaped = strings.TrimSuffix(t.bare, "/"), strings.TrimSuffix(t.bareEscaped, "/")
	return t, nil
}

// isLocalhost reports whether a name always means this machine (RFC 6761 6.3).
func isLocalhost(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// String returns the URL of the target. Schemes with the same meaning are written the same.
func (t *target) String() string {
	scheme := t.scheme
	if t.h2c {
		scheme = "h2c"
	}
	s := scheme + "://" + t.host + t.bareEscaped
	if t.query != "" {
		s += "?" + t.query
	}
	return s
}

// place sets u to the URL at the target for a request with the path and query in of.
func (t *target) place(u, of *url.URL) {
	u.Scheme, u.Host, u.ForceQuery = t.scheme, t.host, of.ForceQuery
	switch {
	case of.Path == "":
		u.Path, u.RawPath = t.bare, t.bareEscaped
	case t.path == "":
		u.Path, u.RawPath = of.Path, of.RawPath
	default:
		u.Path = t.path + of.Path
		// RawPath is only needed where the escaped form differs from the default encoding, and then for both parts.
		if of.RawPath != "" || t.escaped != t.path {
			u.RawPath = t.escaped + of.EscapedPath()
		}
	}
	switch {
	case t.query == "":
		u.RawQuery = of.RawQuery
	case of.RawQuery == "":
		u.RawQuery = t.query
	default:
		u.RawQuery = t.query + "&" + of.RawQuery
	}
}

// Host returns the host and port of the endpoint, as in its URL.
func (e *Endpoint) Host() string { return e.target.host }
