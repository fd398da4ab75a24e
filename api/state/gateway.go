package state

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/openmep/mep/api/gateway"
)

// GatewayRoot is the prefix of what belongs to the gateway.
const GatewayRoot = Root + "gateway/"

// The prefixes of the gateway's records. What may hold any character, such as a serName, is escaped in keys.
const (
	PrefixGatewayRoutes   = GatewayRoot + "routes/"   // {routeId}
	PrefixGatewayPolicies = GatewayRoot + "policies/" // {serName, "*" or a platform route}
	PrefixAPIKeys         = GatewayRoot + "api_keys/" // {id}
	PrefixAccess          = GatewayRoot + "access/"   // {owner}/{serName}/{consumer}
	PrefixQuotas          = GatewayRoot + "quotas/"   // {route}/{consumer}/{per}/{window}
	PrefixStatistics      = GatewayRoot + "stats/"    // {hour}/{replica}/{part}
)

// KeyPart is text as one part of a key.
func KeyPart(s string) string { return dnsEscape.Replace(s) }

// TextOf is the text of one part of a key.
func TextOf(part string) string { return dnsUnescape.Replace(part) }

// GatewayRouteKey is the key of a static route.
func GatewayRouteKey(id string) string { return PrefixGatewayRoutes + KeyPart(id) }

// GatewayPolicyKey is the key of a policy.
func GatewayPolicyKey(name string) string { return PrefixGatewayPolicies + KeyPart(name) }

// APIKeyKey is the key of an API key.
func APIKeyKey(id string) string { return PrefixAPIKeys + id }

// AccessKey is the key of an access request.
func AccessKey(owner, serName, consumer string) string {
	return PrefixAccess + KeyPart(owner) + "/" + KeyPart(serName) + "/" + KeyPart(consumer)
}

// QuotaKey is the key of what has been taken of a quota in the window that began at a moment.
func QuotaKey(route, consumer, per string, window time.Time) string {
	return fmt.Sprintf("%s%s/%s/%s/%s", PrefixQuotas, KeyPart(route), KeyPart(consumer), per, window.UTC().Format("20060102T1504"))
}

// GatewayRoute is the record of a static route. Its id is in its key.
type GatewayRoute struct {
	Version
	Route gateway.Route `json:"route"`
}

// GatewayPolicy is the record of a policy. Its name is in its key.
type GatewayPolicy struct {
	Version
	Name   string         `json:"name"`
	Policy gateway.Policy `json:"policy"`
}

// APIKey is the record of an API key.
type APIKey struct {
	Version
	// Hash is the SHA-256 of the secret part of the key. That has 256 random bits, so that nothing slower is needed.
	Hash []byte `json:"hash"`
	// Key is what is shown of it, without the key itself.
	Key gateway.APIKey `json:"key"`
}

// Access is the record of an access request.
type Access struct {
	Version
	Request gateway.AccessRequest `json:"request"`
}

// QuotaTaken is the record of what the replicas of the gateway have taken of a quota in a window.
type QuotaTaken struct {
	Version
	Taken int64 `json:"taken"`
	Limit int64 `json:"limit"`
}

// Declared are the names of the services the app declared that it uses, sorted; none when it declared nothing.
func (a *App) Declared() []string {
	names := slices.Concat(a.Requires, a.Configured)
	slices.Sort(names)
	return slices.Compact(names)
}

// Sharing is how an app wants its service to be shared, as its registration says; "" when it does not.
func (s *Service) Sharing() string {
	if s.Info.TransportInfo == nil || !strings.Contains(string(s.Info.TransportInfo.ImplSpecificInfo), "sharing") {
		return ""
	}
	return sharing(s.Info.TransportInfo.ImplSpecificInfo)
}

// sharing reads {"gateway": {"sharing": "…"}}. What is not of this form says nothing.
func sharing(info json.RawMessage) string {
	var v struct {
		Gateway struct {
			Sharing string `json:"sharing"`
		} `json:"gateway"`
	}
	if json.Unmarshal(info, &v) != nil {
		return ""
	}
	return v.Gateway.Sharing
}
