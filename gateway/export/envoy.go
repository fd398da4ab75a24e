package export

import (
	"strconv"
	"time"

	"github.com/openmep/mep/api/gateway"
)

// tree is a part of Envoy's configuration, which has too many types to declare them here.
type tree = map[string]any

const (
	envoyTypes   = "type.googleapis.com/envoy."
	envoyManager = envoyTypes + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
	envoyRouter  = envoyTypes + "extensions.filters.http.router.v3.Router"
	envoyBuffer  = envoyTypes + "extensions.filters.http.buffer.v3."
	envoyRBAC    = envoyTypes + "extensions.filters.http.rbac.v3."
	envoyTLS     = envoyTypes + "extensions.transport_sockets.tls.v3.UpstreamTlsContext"
	envoyHTTP    = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
)

// envoyPort is the port of the listener.
const envoyPort = 8000

// Envoy returns the routes as a static configuration for Envoy (API v3).
func Envoy(t Table) ([]byte, error) {
	e := &envoy{names: names{}, clusters: []any{}, hosts: map[string]*virtualHost{}}
	t.exported(&e.notes, e.route)
	listener := tree{
		"name": "mep", "address": address("0.0.0.0", envoyPort),
		"filter_chains": []any{tree{"filters": []any{tree{
			"name": "envoy.filters.network.http_connection_manager",
			"typed_config": tree{
				"@type": envoyManager, "stat_prefix": "mep", "normalize_path": true, "merge_slashes": true, //nolint:misspell // Envoy spells it so
				"path_with_escaped_slashes_action": "REJECT_REQUEST", "upgrade_configs": []any{tree{"upgrade_type": "websocket"}},
				"route_config": tree{"name": "mep", "ignore_port_in_host_matching": true, "virtual_hosts": e.virtualHosts()},
				"http_filters": e.filters(),
			},
		}}}},
	}
	return document("Static configuration of Envoy (API v3)", []string{
		"The listener has neither TLS nor a check of who calls: add a transport socket with certificates, and the filter jwt_authn with the",
		"key set of the platform (/.well-known/jwks.json), before anybody else can reach it. X-AppInstanceID and X-Consumer-Scopes are taken",
		"out of requests and not set: where claim_to_headers of that filter sets them, take them out of request_headers_to_remove.",
	}, &e.notes, tree{"static_resources": tree{"listeners": []any{listener}, "clusters": e.clusters}})
}

type envoy struct {
	names    names
	notes    notes
	clusters []any
	hosts    map[string]*virtualHost
	buffered bool
	ruled    bool
}

func address(host string, port int) tree {
	return tree{"socket_address": tree{"address": host, "port_value": port}}
}

// filters returns the HTTP filters: those that some route configures, and the router at the end.
func (e *envoy) filters() []any {
	var list []any
	if e.ruled {
		list = append(list, tree{"name": "envoy.filters.http.rbac", "typed_config": tree{"@type": envoyRBAC + "RBAC"}})
	}
	if e.buffered {
		// Routes have their own limits; the filter is disabled for the others.
		list = append(list, tree{"name": "envoy.filters.http.buffer", "disabled": true, "typed_config": tree{"@type": envoyBuffer + "Buffer", "max_request_bytes": 1 << 20}})
	}
	return append(list, tree{"name": "envoy.filters.http.router", "typed_config": tree{"@type": envoyRouter}})
}

func (e *envoy) route(r *gateway.RouteView, to targets, p gateway.Policy) {
	unsupported(r, &p, &e.notes)
	e.missing(r, &p)
	name := e.names.of(r.ID)
	if e.routes(r, name, to, &p) == 0 {
		e.notes.add(r.ID, "the route: it has no path that could be exported")
		return
	}
	e.clusters = append(e.clusters, e.cluster(r, name, to, &p))
}

// missing notes the features for which open source Envoy has no filter, or only one that needs a separate server.
func (e *envoy) missing(r *gateway.RouteView, p *gateway.Policy) {
	anonymous := len(p.Authentication) == 1 && p.Authentication[0] == gateway.Anonymous
	if !anonymous {
		e.notes.add(r.ID, "who may call: every caller is let in until a filter for that is added")
	}
	if p.Sharing == gateway.SharingConditional {
		e.notes.add(r.ID, "sharing on conditions: whoever is let in may call")
	}
	if len(p.Quotas) > 0 {
		e.notes.add(r.ID, "its quotas: the filter ratelimit needs a server that counts")
	}
	if p.Headers.Forwarded != nil && *p.Headers.Forwarded {
		e.notes.add(r.ID, "the header field Forwarded")
	}
}

func (e *envoy) cluster(r *gateway.RouteView, name string, to targets, p *gateway.Policy) tree {
	var endpoints []any
	for _, target := range to.hosts {
		host, port := split(target)
		endpoints = append(endpoints, tree{"endpoint": tree{"address": address(host, port)}})
	}
	c := tree{
		"name": name, "type": "STRICT_DNS", "connect_timeout": seconds(p.Timeouts.Connect.Or(5 * time.Second)),
		"load_assignment": tree{"cluster_name": name, "endpoints": []any{tree{"lb_endpoints": endpoints}}},
	}
	if len(to.hosts) > 1 {
		c["lb_policy"] = "LEAST_REQUEST"
	}
	if to.scheme == "h2c" {
		c["typed_extension_protocol_options"] = tree{envoyHTTP: tree{
			"@type": "type.googleapis.com/" + envoyHTTP, "explicit_http_config": tree{"http2_protocol_options": tree{}},
		}}
	}
	if to.secure() {
		c["transport_socket"] = e.tls(r, to, p)
	}
	if h := p.Upstream.HealthCheck; h != nil {
		c["health_checks"] = []any{tree{
			"timeout": seconds(h.Timeout.Or(time.Second)), "interval": seconds(h.Interval.Or(5 * time.Second)),
			"healthy_threshold": max(1, h.Healthy), "unhealthy_threshold": orTwo(h.Unhealthy),
			"http_health_check": tree{"path": to.path + h.Path, "expected_statuses": []any{tree{"start": 200, "end": 400}}},
		}}
	}
	if after := p.Upstream.EjectAfter; after >= 0 {
		if after == 0 {
			after = 5
		}
		c["outlier_detection"] = tree{"consecutive_5xx": after, "base_ejection_time": seconds(p.Upstream.EjectFor.Or(10 * time.Second))}
	}
	return c
}

func (e *envoy) tls(r *gateway.RouteView, to targets, p *gateway.Policy) tree {
	name := p.Upstream.ServerName
	if name == "" {
		name, _ = split(to.hosts[0])
		if len(to.hosts) > 1 {
			e.notes.add(r.ID, "that the certificate of each target is for its own host: they are all taken for %s", name)
		}
	}
	trusted := tree{"filename": "/etc/ssl/certs/ca-certificates.crt"}
	if p.Upstream.CA != "" {
		trusted = tree{"inline_string": p.Upstream.CA}
	}
	return tree{"name": "envoy.transport_sockets.tls", "typed_config": tree{
		"@type": envoyTLS, "sni": name,
		"common_tls_context": tree{"validation_context": tree{
			"trusted_ca":                    trusted,
			"match_typed_subject_alt_names": []any{tree{"san_type": "DNS", "matcher": tree{"exact": name}}},
		}},
	}}
}

// seconds formats a duration as protobuf does in JSON.
func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + "s" }
