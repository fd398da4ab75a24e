package registry

import (
	"bytes"
	"encoding/json"

	"github.com/openmep/mep/api/mp1"
)

// What stands around the URL of a gateway in the place of an endpoint.
const (
	endpointHead = `{"uris":["`
	endpointTail = `"]}`
)

// InstancePath is the path of a service instance below the URL of the gateway.
func (s *Service) InstancePath() string { return "/instances/" + s.ID }

// place is where the endpoint of a service stands in its JSON, found once it is asked for.
type place struct {
	from, to int
	// transport is what the URL is made of; nil when consumers do not go through the gateway.
	transport *mp1.TransportInfo
}

// advertised is the URL that a reader is to see in place of the endpoint, and where that stands in the JSON; "" when it sees the endpoint.
func (s *Service) advertised(v View) (url string, from, to int) {
	if v.Gateway == "" || v.Owner != "" && v.Owner == s.AppInstanceID {
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
	return p.transport.ThroughGateway(v.Gateway, s.InstancePath()), p.from, p.to
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
	if t.ThroughGateway("http://gateway", "/") == "" {
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
