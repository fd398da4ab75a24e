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

// What stands around the URL of a gateway in the place of an endpoint.
const (
	endpointHead = `{"uris":["`
	endpointTail = `"]}`
)

// Gateway is a gateway that consumers are shown in the place of the endpoints of services. The zero Gateway is none.
type Gateway struct {
	// URL is its base URL, with no slash at its end.
	URL string
	// Hosts is the host and port below which instances have names of their own there; "" when they have none.
	Hosts string
}

// NewGateway is the gateway at a base URL; "" is none. domain is that of services there, "" when there is none.
func NewGateway(base, domain string) Gateway {
	g := Gateway{URL: strings.TrimSuffix(base, "/")}
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || domain == "" {
		return g
	}
	if domain, err = gateway.CanonicalDomain(domain); err != nil {
		return g
	}
	port := "80" // gRPC's clients want it to be said
	if u.Scheme == "https" {
		port = "443"
	}
	g.Hosts = gateway.InstancesLabel + "." + domain + ":" + cmp.Or(u.Port(), port)
	return g
}

// at is where the gateway has an instance with a transport; "" when it does not have it.
func (g Gateway) at(t *mp1.TransportInfo, s *Service) string {
	if u := t.ThroughGateway(g.URL, s.InstancePath()); u != "" || g.Hosts == "" {
		return u
	}
	return t.AtGatewayHost(s.ID+"."+g.Hosts, strings.HasPrefix(g.URL, "https://"))
}

// InstancePath is the path of a service instance below the URL of the gateway.
func (s *Service) InstancePath() string { return "/instances/" + s.ID }

// place is where the endpoint of a service stands in its JSON, found once it is asked for.
type place struct {
	from, to int
	// transport is what the URL is made of; nil when consumers do not go through a gateway in any way.
	transport *mp1.TransportInfo
}

// advertised is the URL that a reader is to see in place of the endpoint, and where that stands in the JSON; "" when it sees the endpoint.
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

// findEndpoint looks for the endpoint. The JSON is the platform's own: the transport is the first that has such a member, and quotes
// within strings are escaped.
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

// endOfObject is the position after the JSON object that begins at a position, -1 when it has no end.
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
