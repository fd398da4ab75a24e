package registry

import (
	"bytes"
	"cmp"
	"encoding/json"
	"net/url"
	"strings"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/api/mp1"
)

// The JSON around the URL of a gateway that replaces an endpoint.
const (
	endpointHead = `{"uris":["`
	endpointTail = `"]}`
)

// Gateway is a gateway that consumers are shown in place of the endpoints of services. The zero Gateway is none.
type Gateway struct {
	// URL is its base URL, without a trailing slash.
	URL string
	// Hosts is the host and port below which instances have names of their own at the gateway; "" if they have none.
	Hosts string
}

// NewGateway returns the gateway at a base URL; "" is none. domain is the domain of services there, "" if there is none.
func NewGateway(base, domain string) Gateway {
	g := Gateway{URL: strings.TrimSuffix(base, "/")}
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || domain == "" {
		return g
	}
	if domain, err = gateway.CanonicalDomain(domain); err != nil {
		return g
	}
	port := "80" // gRPC clients need an explicit port
	if u.Scheme == "https" {
		port = "443"
	}
	g.Hosts = gateway.InstancesLabel + "." + domain + ":" + cmp.Or(u.Port(), port)
	return g
}

// at returns where the gateway exposes an instance with a transport; "" if it does not.
func (g Gateway) at(t *mp1.TransportInfo, s *Service) string {
	if u := t.ThroughGateway(g.URL, s.InstancePath()); u != "" || g.Hosts == "" {
		return u
	}
	return t.AtGatewayHost(s.ID+"."+g.Hosts, strings.HasPrefix(g.URL, "https://"))
}

// InstancePath returns the path of a service instance below the URL of the gateway.
func (s *Service) InstancePath() string { return "/instances/" + s.ID }

// place is where the endpoint of a service is in its JSON, located on first use.
type place struct {
	from, to int
	// transport is what the URL is made from; nil if consumers do not go through a gateway at all.
	transport *mp1.TransportInfo
}

// advertised returns the URL that a reader sees in place of the endpoint, and the position of the endpoint in the JSON; the
// URL is "" if the reader sees the endpoint itself.
func (s *Service) advertised(v View) (url string, from, to int) {
	if v.Gateway.URL == "" || v.Owner != "" && v.Owner == s.AppInstanceID {
		return "", 0, 0
	}
	p := s.endpoint.Load()
	if p == nil {
		p = s.findEndpoint()
		s.endpoint.Store(p)
	}
	if p.transport == nil {
		return "", 0, 0
	}
	return v.Gateway.at(p.transport, s), p.from, p.to
}

// findEndpoint locates the endpoint. The JSON is the platform's own: the transport is the first to have such a member, and
// quotes within strings are escaped.
func (s *Service) findEndpoint() *place {
	member := []byte(`"endpoint":`)
	at := bytes.Index(s.rendered[:s.info], member)
	if at < 0 {
		return &place{}
	}
	from := at + len(member)
	to := endOfObject(s.rendered[:s.info], from)
	info, err := s.Info()
	if to < 0 || err != nil || info.TransportInfo == nil || !json.Valid(s.rendered[from:to]) {
		return &place{}
	}
	t := &mp1.TransportInfo{Type: info.TransportInfo.Type, Protocol: info.TransportInfo.Protocol, Endpoint: info.TransportInfo.Endpoint}
	if (Gateway{URL: "http://gateway", Hosts: "gateway"}).at(t, s) == "" {
		return &place{}
	}
	return &place{from: from, to: to, transport: t}
}

// endOfObject returns the position after the JSON object that begins at from, -1 if the object does not end.
func endOfObject(text []byte, from int) int {
	depth, quoted := 0, false
	for i := from; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{':
			depth++
		case c == '}':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return -1
}
