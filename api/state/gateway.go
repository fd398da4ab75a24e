package state

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/openmep/mep/api/gateway"
)

// GatewayRoot is the prefix of the gateway's records.
const GatewayRoot = Root + "gateway/"

// The prefixes of the gateway's records. Parts of keys that may contain any character, such as a serName, are
// escaped.
const (
	PrefixGatewayRoutes   = GatewayRoot + "routes/"   // {routeId}
	PrefixGatewayPolicies = GatewayRoot + "policies/" // {serName, "*" or a platform route}
	PrefixAPIKeys         = GatewayRoot + "api_keys/" // {id}
	PrefixAccess          = GatewayRoot + "access/"   // {owner}/{serName}/{consumer}
	PrefixQuotas          = GatewayRoot + "quotas/"   // {route}/{consumer}/{per}/{window}
	PrefixStatistics      = GatewayRoot + "stats/"    // {hour}/{replica}/{part}
)

// KeyPart escapes a text for use as one part of a key.
func KeyPart(s string) string { return dnsEscape.Replace(s) }

// TextOf reverses KeyPart.
func TextOf(part string) string { return dnsUnescape.Replace(part) }

// GatewayRouteKey returns the key of a static route.
func GatewayRouteKey(id string) string { return PrefixGatewayRoutes + KeyPart(id) }

// GatewayPolicyKey returns the key of a policy.
func GatewayPolicyKey(name string) string { return PrefixGatewayPolicies + KeyPart(name) }

// APIKeyKey returns the key of the record of an API key.
func APIKeyKey(id string) string { return PrefixAPIKeys + id }

// AccessKey returns the key of an access request.
func AccessKey(owner, serName, consumer string) string {
	return PrefixAccess + KeyPart(owner) + "/" + KeyPart(serName) + "/" + KeyPart(consumer)
}

// QuotaKey returns the key of what has been used of a quota in the window that starts at window.
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
	// Hash is the SHA-256 of the secret part of the key. The secret has 256 random bits, so a slower hash is not
	// needed.
	Hash []byte `json:"hash"`
	// Key is the public description of the API key, without the key itself.
	Key gateway.APIKey `json:"key"`
}

// Access is the record of an access request.
type Access struct {
	Version
	Request gateway.AccessRequest `json:"request"`
}

// QuotaTaken is the record of how much of a quota the replicas of the gateway have taken in a window.
type QuotaTaken struct {
	Version
	Taken int64 `json:"taken"`
	Limit int64 `json:"limit"`
}

// Declared returns the names of the services the app declared that it uses, sorted and without duplicates.
func (a *App) Declared() []string {
	names := slices.Concat(a.Requires, a.Configured)
	slices.Sort(names)
	return slices.Compact(names)
}

// Sharing returns how the app wants its service to be shared, according to its registration, or "" when that does
// not say.
func (s *Service) Sharing() string {
	if s.Info.TransportInfo == nil || !strings.Contains(string(s.Info.TransportInfo.ImplSpecificInfo), "sharing") {
		return ""
	}
	return sharing(s.Info.TransportInfo.ImplSpecificInfo)
}

// sharing reads {"gateway": {"sharing": "…"}}, and returns "" for other forms.
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
