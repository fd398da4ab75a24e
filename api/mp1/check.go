package mp1

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/openmep/mep/api/problem"
)

// Bounds on the members of requests, in characters and elements.
const (
	MaxName        = 255
	MaxVersion     = 64
	MaxDescription = 1024
	MaxURI         = 2048
	MaxList        = 100
	MaxOpaque      = 16 << 10
)

var (
	serviceStates = []ServiceState{StateActive, StateInactive, StateSuspended}
	localities    = []LocalityType{
		LocalityMECSystem, LocalityMECHost, LocalityNFVIPop, LocalityZone, LocalityZoneGroup, LocalityNFVINode,
	}
	grantTypes = []GrantType{GrantAuthorizationCode, GrantImplicit, GrantResourceOwner, GrantClientCredentials}
)

// Valid reports whether s is one of the states of the standard.
func (s ServiceState) Valid() bool { return oneOf(s, serviceStates) }

// Valid reports whether l is one of the scopes of the standard.
func (l LocalityType) Valid() bool { return oneOf(l, localities) }

// LocalityValues lists the scopes of locality for use in messages.
func LocalityValues() string { return list(localities) }

func oneOf[T comparable](v T, among []T) bool {
	return slices.Contains(among, v)
}

func list[T ~string](values []T) string {
	parts := make([]string, len(values))
	for i, v := range values {
		parts[i] = string(v)
	}
	return strings.Join(parts, ", ")
}

// checker records faults below a path.
type checker struct{ problem.Place }

func newChecker(faults *problem.InvalidParams) checker { return checker{problem.Place{Faults: faults}} }

func (c checker) in(name string) checker { return checker{c.In(name)} }

func (c checker) item(name string, i int) checker { return checker{c.Item(name, i)} }

func quote(value string) string { return problem.Quote(value) }

func refused(want, value string) error { return problem.Refused(want, value) }

func (c checker) required(name, value string, limit int) {
	if value == "" {
		c.Fault(name, "is required")
		return
	}
	c.text(name, value, limit)
}

func (c checker) text(name, value string, limit int) {
	if utf8.RuneCountInString(value) > limit {
		c.Fault(name, fmt.Sprintf("is longer than %d characters", limit))
		return
	}
	if strings.ContainsFunc(value, unicode.IsControl) {
		c.Fault(name, "contains a control character")
	}
}

// uri accepts a URI reference of RFC 3986: absolute, or relative as the examples of the standard use.
func (c checker) uri(name, value string) {
	if value == "" {
		c.Fault(name, "is required")
		return
	}
	if len(value) > MaxURI {
		c.Fault(name, fmt.Sprintf("is longer than %d characters", MaxURI))
		return
	}
	if strings.ContainsFunc(value, func(r rune) bool { return unicode.IsControl(r) || r == ' ' }) {
		c.Fault(name, "is not a URI: it contains white space or control characters")
		return
	}
	if _, err := url.Parse(value); err != nil {
		c.Fault(name, "is not a URI")
	}
}

func (c checker) listLen(name string, n int) {
	if n > MaxList {
		c.Fault(name, fmt.Sprintf("has more than %d elements", MaxList))
	}
}

func checkEnum[T ~string](c checker, name string, value T, among []T) {
	switch {
	case value == "":
		c.Fault(name, "is required")
	case !oneOf(value, among):
		c.Fault(name, "must be one of "+list(among))
	}
}

// Check records all faults of s as the body of a registration or replacement: required members, enumerations, lengths, and that
// exactly one of transportId and transportInfo is given (both are accepted when they name the same transport).
func (s *ServiceInfo) Check(faults *problem.InvalidParams) {
	c := newChecker(faults)
	c.required("serName", s.SerName, MaxName)
	c.required("version", s.Version, MaxVersion)
	checkEnum(c, "state", s.State, serviceStates)
	c.required("serializer", string(s.Serializer), MaxVersion)
	if s.ScopeOfLocality != "" {
		checkEnum(c, "scopeOfLocality", s.ScopeOfLocality, localities)
	}
	if s.SerCategory != nil {
		s.SerCategory.check(c.in("serCategory"))
	}
	if s.LivenessInterval != nil && *s.LivenessInterval < 0 {
		c.Fault("livenessInterval", "must be 0 or a positive number of seconds")
	}
	c.text("transportId", s.TransportID, MaxName)
	switch {
	case s.TransportInfo == nil && s.TransportID == "":
		c.Fault("transportInfo", "is required, or transportId instead: exactly one of them")
	case s.TransportInfo != nil && s.TransportID != "" && s.TransportInfo.ID != s.TransportID:
		c.Fault("transportId", "and transportInfo must not both be present: exactly one of them")
	case s.TransportInfo != nil:
		s.TransportInfo.check(c.in("transportInfo"))
	}
}

func (r *CategoryRef) check(c checker) {
	c.uri("href", r.Href)
	c.required("id", r.ID, MaxName)
	c.required("name", r.Name, MaxName)
	c.required("version", r.Version, MaxVersion)
}

// Check records all faults of t.
func (t *TransportInfo) Check(faults *problem.InvalidParams) { t.check(newChecker(faults)) }

func (t *TransportInfo) check(c checker) {
	c.required("id", t.ID, MaxName)
	c.required("name", t.Name, MaxName)
	c.text("description", t.Description, MaxDescription)
	c.required("type", string(t.Type), MaxVersion)
	c.required("protocol", t.Protocol, MaxVersion)
	c.required("version", t.Version, MaxVersion)
	if t.Endpoint == nil {
		c.Fault("endpoint", "is required")
	} else {
		t.Endpoint.check(c.in("endpoint"))
	}
	if t.Security == nil {
		c.Fault("security", "is required; it may be an empty object")
	} else if t.Security.OAuth2Info != nil {
		t.Security.OAuth2Info.check(c.in("security.oAuth2Info"))
	}
	c.opaque("implSpecificInfo", t.ImplSpecificInfo)
}

func (c checker) opaque(name string, value []byte) {
	if len(value) > MaxOpaque {
		c.Fault(name, fmt.Sprintf("is larger than %d bytes", MaxOpaque))
	}
}

func (e *EndPointInfo) check(c checker) {
	var present []string
	for name, there := range map[string]bool{
		"uris": len(e.URIs) > 0, "fqdn": len(e.FQDN) > 0,
		"addresses": len(e.Addresses) > 0, "alternative": len(e.Alternative) > 0,
	} {
		if there {
			present = append(present, name)
		}
	}
	if len(present) != 1 {
		c.Fault("", "must have exactly one of uris, fqdn, addresses and alternative, and it must not be empty")
	}
	c.listLen("uris", len(e.URIs))
	c.listLen("fqdn", len(e.FQDN))
	c.listLen("addresses", len(e.Addresses))
	for i, u := range e.URIs {
		c.item("uris", i).uri("", u)
	}
	for i, n := range e.FQDN {
		if !isDomainName(n) {
			c.item("fqdn", i).Fault("", "is not a domain name")
		}
	}
	for i, a := range e.Addresses {
		ci := c.item("addresses", i)
		ci.required("host", a.Host, MaxName)
		if a.Port < 1 || a.Port > 65535 {
			ci.Fault("port", "must be 1 to 65535")
		}
	}
	c.opaque("alternative", e.Alternative)
}

// isDomainName reports whether s is a host name of RFC 1123, which here may contain underscores and end with a dot.
func isDomainName(s string) bool {
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, r := range label {
			if r != '-' && r != '_' && (r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r)) {
				return false
			}
		}
	}
	return true
}

func (o *OAuth2Info) check(c checker) {
	if n := len(o.GrantTypes); n < 1 || n > 4 {
		c.Fault("grantTypes", "must have 1 to 4 elements")
	}
	implicitOnly := len(o.GrantTypes) > 0
	for i, g := range o.GrantTypes {
		checkEnum(c.item("grantTypes", i), "", g, grantTypes)
		implicitOnly = implicitOnly && g == GrantImplicit
	}
	if o.TokenEndpoint != "" {
		c.uri("tokenEndpoint", o.TokenEndpoint)
	} else if !implicitOnly {
		c.Fault("tokenEndpoint", "is required unless OAUTH2_IMPLICIT_GRANT is the only grant")
	}
}

// Check records all faults of u.
func (u *ServiceLivenessUpdate) Check(faults *problem.InvalidParams) {
	if u.State != StateActive {
		newChecker(faults).Fault("state", "must be ACTIVE: a heartbeat says that the service is alive")
	}
}

// Check records all faults of s as the body of a subscription request. Whether CallbackReference may be called is for the
// platform to decide.
func (s *SerAvailabilityNotificationSubscription) Check(faults *problem.InvalidParams) {
	c := newChecker(faults)
	if s.SubscriptionType != SubscriptionTypeSerAvailability {
		c.Fault("subscriptionType", "must be "+SubscriptionTypeSerAvailability)
	}
	c.uri("callbackReference", s.CallbackReference)
	if s.FilteringCriteria != nil {
		s.FilteringCriteria.check(c.in("filteringCriteria"))
	}
}

func (f *FilteringCriteria) check(c checker) {
	given := 0
	for _, n := range []int{len(f.SerInstanceIDs), len(f.SerNames), len(f.SerCategories)} {
		if n > 0 {
			given++
		}
	}
	if given > 1 {
		c.Fault("", "must have at most one of serInstanceIds, serNames and serCategories")
	}
	c.listLen("serInstanceIds", len(f.SerInstanceIDs))
	c.listLen("serNames", len(f.SerNames))
	c.listLen("serCategories", len(f.SerCategories))
	c.listLen("states", len(f.States))
	for i, id := range f.SerInstanceIDs {
		c.item("serInstanceIds", i).required("", id, MaxName)
	}
	for i, n := range f.SerNames {
		c.item("serNames", i).required("", n, MaxName)
	}
	for i := range f.SerCategories {
		f.SerCategories[i].check(c.item("serCategories", i))
	}
	for i, s := range f.States {
		checkEnum(c.item("states", i), "", s, serviceStates)
	}
}
