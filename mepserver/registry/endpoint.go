package registry

import (
	"fmt"
	"net/url"
	"reflect"

	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/problem"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/netguard"
)

// checkEndpoint refuses endpoints with an address that Targets refuses. Names are not resolved here: what they resolve to may
// change, so callers must check it when they connect. An endpoint of one of the platform's transports is accepted as it is:
// an app that writes back what it read must not fail.
func (p Policy) checkEndpoint(t *mp1.TransportInfo) error {
	if p.Targets == nil || t.Endpoint == nil {
		return nil
	}
	if own, ok := p.transport(t.ID); ok && reflect.DeepEqual(own.Endpoint, t.Endpoint) {
		return nil
	}
	var faults problem.InvalidParams
	for i, uri := range t.Endpoint.URIs {
		if err := checkURI(p.Targets, uri); err != nil {
			faults.Add(fmt.Sprintf("transportInfo.endpoint.uris[%d]", i), err.Error())
		}
	}
	for i, a := range t.Endpoint.Addresses {
		if err := p.Targets.CheckHost(a.Host, uint16(a.Port)); err != nil { //nolint:gosec // 1 to 65535 after TransportInfo.Check
			faults.Add(fmt.Sprintf("transportInfo.endpoint.addresses[%d].host", i), err.Error())
		}
	}
	return errs.Params(faults)
}

// checkURI checks a URI whose scheme the gateway calls, and ignores others.
func checkURI(targets *netguard.Policy, uri string) error {
	u, err := url.Parse(uri)
	if err != nil || u.Host == "" {
		return nil
	}
	switch u.Scheme {
	case "http", "https", "ws", "wss", "h2c", "grpc", "grpcs":
	default:
		return nil
	}
	port, err := netguard.PortOf(u)
	if err != nil {
		return err
	}
	return targets.CheckHost(u.Hostname(), port)
}
