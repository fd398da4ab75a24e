package export

import (
	"maps"
	"net/http"
	"slices"

	"github.com/openmep/mep/api/gateway"
)

// The Kong consumers for calls without a key or token.
const (
	nobody   = "mep-nobody"   // is refused
	stranger = "mep-stranger" // is admitted
)

func (k *kong) plugins(r *gateway.RouteView, p *gateway.Policy) []kongPlugin {
	list := slices.Concat(k.authentication(r, p), k.rules(r, p), k.sharing(r, p), k.quotas(r, p))
	if p.MaxBody > 0 {
		list = append(list, kongPlugin{"request-size-limiting", map[string]any{"allowed_payload_size": p.MaxBody, "size_unit": "bytes"}})
	}
	if config := transformation(p, ""); config != nil {
		list = append(list, kongPlugin{"request-transformer", config})
	}
	if config := transform(p.Headers.SetResponse, p.Headers.RemoveResponse); config != nil {
		list = append(list, kongPlugin{"response-transformer", config})
	}
	if f := p.Headers.Forwarded; f != nil && *f {
		k.notes.add(r.ID, "the header field Forwarded")
	}
	// Each plugin may occur only once.
	seen := make(map[string]bool)
	return slices.DeleteFunc(list, func(plugin kongPlugin) bool {
		twice := seen[plugin.Name]
		seen[plugin.Name] = true
		return twice
	})
}

// transformation returns the configuration that changes the header fields of a request and, unless uri is "", its path. In Kong, the
// configuration of a route replaces that of its service.
func transformation(p *gateway.Policy, uri string) map[string]any {
	config := transform(p.Headers.Set, removed(p))
	if uri == "" {
		return config
	}
	if config == nil {
		config = make(map[string]any)
	}
	replace, _ := config["replace"].(map[string]any)
	if replace == nil {
		replace = make(map[string]any)
		config["replace"] = replace
	}
	replace["uri"] = uri
	return config
}

func (k *kong) authentication(r *gateway.RouteView, p *gateway.Policy) []kongPlugin {
	methods := p.Authentication
	if len(methods) == 0 {
		methods = []gateway.Method{gateway.ByToken, gateway.ByAPIKey, gateway.ByCertificate}
	}
	if len(p.Scopes) > 0 {
		k.notes.add(r.ID, "the scopes callers must hold")
	}
	if slices.Contains(methods, gateway.ByCertificate) {
		k.notes.add(r.ID, "client certificates of callers: the plugin mtls-auth is not part of the open source Kong")
	}
	var plugins []kongPlugin
	if slices.Contains(methods, gateway.ByToken) {
		plugins = append(plugins, kongPlugin{"jwt", map[string]any{"claims_to_verify": []string{"exp"}}})
	}
	if slices.Contains(methods, gateway.ByAPIKey) {
		plugins = append(plugins, kongPlugin{"key-auth", map[string]any{"key_names": []string{"x-api-key"}, "hide_credentials": true}})
	}
	open := slices.Contains(methods, gateway.Anonymous)
	switch {
	case len(plugins) == 0 && !open:
		k.notes.add(r.ID, "who may call: nobody may until a plugin for that is added")
		return []kongPlugin{{"request-termination", map[string]any{"status_code": http.StatusUnauthorized}}}
	case open, len(plugins) > 1:
		// Kong requires all of the plugins to succeed, unless each of them admits anonymous callers.
		who := nobody
		if open {
			who = stranger
		}
		k.consumer(who)
		for _, plugin := range plugins {
			plugin.Config["anonymous"] = who
		}
	}
	return plugins
}

// consumer adds the Kong consumer with the given name, for calls without credentials, unless it exists.
func (k *kong) consumer(name string) {
	if k.consumers[name] {
		return
	}
	k.consumers[name] = true
	c := kongConsumer{Username: name}
	if name == nobody {
		c.Plugins = []kongPlugin{{"request-termination", map[string]any{"status_code": http.StatusUnauthorized, "message": "a token or an API key is needed"}}}
	}
	k.config.Consumers = append(k.config.Consumers, c)
}

// rules exports rules only if they are a plain list of consumers or of addresses, all allowed or all denied.
func (k *kong) rules(r *gateway.RouteView, p *gateway.Policy) []kongPlugin {
	if len(p.Rules) == 0 {
		if p.Default == gateway.Deny {
			return []kongPlugin{{"request-termination", map[string]any{"status_code": http.StatusForbidden}}}
		}
		return nil
	}
	// All rules must have the effect opposite to the default: then their order does not matter.
	effect, otherwise := p.Rules[0].Effect, p.Default
	if otherwise == "" {
		otherwise = gateway.Allow
	}
	var consumers, sources []string
	plain := effect != otherwise
	for i := range p.Rules {
		rule := &p.Rules[i]
		plain = plain && rule.Effect == effect && len(rule.Scopes)+len(rule.Methods)+len(rule.Paths) == 0 && (len(rule.Consumers) == 0) != (len(rule.Sources) == 0)
		consumers, sources = append(consumers, rule.Consumers...), append(sources, rule.Sources...)
	}
	if !plain || len(consumers) > 0 && len(sources) > 0 {
		k.notes.add(r.ID, "its rules, which are more than a list of consumers or of addresses: all calls are refused until they are replaced")
		return []kongPlugin{{"request-termination", map[string]any{"status_code": http.StatusForbidden}}}
	}
	if len(sources) > 0 {
		return []kongPlugin{{"ip-restriction", map[string]any{string(effect): sources}}}
	}
	return []kongPlugin{{"acl", map[string]any{string(effect): consumers}}}
}

// sharing admits a group named after the service. A plugin may occur only once, so acl is not available if there are rules about consumers.
func (k *kong) sharing(r *gateway.RouteView, p *gateway.Policy) []kongPlugin {
	if p.Sharing != gateway.SharingConditional {
		return nil
	}
	if slices.ContainsFunc(p.Rules, func(rule gateway.Rule) bool { return len(rule.Consumers) > 0 }) {
		k.notes.add(r.ID, "sharing on conditions beside rules about consumers: all calls are refused until that is replaced")
		return []kongPlugin{{"request-termination", map[string]any{"status_code": http.StatusForbidden}}}
	}
	group := "granted:" + r.Service
	k.notes.add(r.ID, "who was granted access: give those consumers the group %q", group)
	return []kongPlugin{{"acl", map[string]any{string(gateway.Allow): []string{group}}}}
}

func (k *kong) quotas(r *gateway.RouteView, p *gateway.Policy) []kongPlugin {
	if len(p.Quotas) == 0 {
		return nil
	}
	config := map[string]any{"limit_by": "consumer", "policy": "local", "fault_tolerant": p.WhenStoreAway == gateway.AwayAllow}
	for _, q := range p.Quotas {
		config[q.Per] = q.Calls
	}
	k.notes.add(r.ID, "that its quotas are counted over all replicas: use the policy redis of the plugin rate-limiting for that")
	return []kongPlugin{{"rate-limiting", config}}
}

// transform sets and removes fields: it replaces the fields that are present and adds the others.
func transform(set map[string]string, remove []string) map[string]any {
	config := make(map[string]any)
	if len(remove) > 0 {
		config["remove"] = map[string]any{"headers": remove}
	}
	if len(set) > 0 {
		var fields []string
		for _, name := range slices.Sorted(maps.Keys(set)) {
			fields = append(fields, name+":"+set[name])
		}
		config["replace"] = map[string]any{"headers": fields}
		config["add"] = map[string]any{"headers": fields}
	}
	if len(config) == 0 {
		return nil
	}
	return config
}
