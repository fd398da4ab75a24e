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

// target is what an endpoint's URL says.
type target struct {
	// scheme is http or https; h2c says that http is spoken as HTTP/2.
	scheme string
	h2c    bool
	// host is the authority in lower case.
	host string
	// path and escaped are put in front of the paths of requests: without a slash at the end. bare and bareEscaped are the path of
	// requests that have none.
	path, escaped     string
	bare, bareEscaped string
	query             string
	// literal is the address, invalid when the host is a name.
	literal netip.AddrPort
	// address is what is dialled: host and port, names in ASCII.
	address string
}

// parseTarget reads the URL of an endpoint.
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

// isLocalhost reports whether a name always stands for this machine (RFC 6761 6.3).
func isLocalhost(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// String is the URL of the target. The schemes that mean the same are written the same.
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

// place sets u to the path and query of a request at the target.
func (t *target) place(u, of *url.URL) {
	u.Scheme, u.Host, u.ForceQuery = t.scheme, t.host, of.ForceQuery
	switch {
	case of.Path == "":
		u.Path, u.RawPath = t.bare, t.bareEscaped
	case t.path == "":
		u.Path, u.RawPath = of.Path, of.RawPath
	default:
		u.Path = t.path + of.Path
		// The escaped form is only needed where it is not the usual one, and then of both parts.
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

// Host is the host and port of the endpoint, as its URL has them.
func (e *Endpoint) Host() string { return e.target.host }
