package identity

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/openmep/mep/api/state"
)

// Config holds the settings by which all listeners authenticate callers.
type Config struct {
	Audience     string          `name:"auth.audience" default:"mep" usage:"audience (claim aud) that tokens of the platform carry and that is asked for"`
	Leeway       time.Duration   `name:"auth.leeway" default:"30s" reload:"true" usage:"how far the clocks of issuers may differ from this one's"`
	TokenCache   int             `name:"auth.tokenCache" default:"16384" reload:"true" usage:"verified tokens that are remembered"`
	Issuers      []TrustedIssuer `name:"auth.issuers" reload:"true" usage:"issuers that are trusted beside the platform's own: issuer, audience, jwksUrl or jwksFile, caFile, algorithms, scopes, grant, subjectClaim"`
	Certificates []CertRule      `name:"auth.clientCertificates" reload:"true" usage:"callers that prove who they are with a certificate of tls.clientCAs: one of uri, dns, email or commonName with {caller} in it, and scopes"`
	Proxies      []string        `name:"proxies" reload:"true" usage:"networks (CIDR) of the proxies whose X-Forwarded-For and X-Real-IP are believed"`
}

// TrustedIssuer is an issuer of tokens beside the platform.
type TrustedIssuer struct {
	// Issuer is the claim iss of its tokens.
	Issuer string `json:"issuer"`
	// Audience must be one of the values of the claim aud; default: the platform's own.
	Audience string `json:"audience,omitempty"`
	// JWKSURL is the URL of its keys (RFC 7517), JWKSFile a file that holds them. One of them is given.
	JWKSURL  string `json:"jwksUrl,omitempty"`
	JWKSFile string `json:"jwksFile,omitempty"`
	// CAFile holds the CA certificates that JWKSURL is verified with; default: the system's.
	CAFile string `json:"caFile,omitempty"`
	// Algorithms are the JWS algorithms accepted; default: ES256, RS256, RS512, EdDSA.
	Algorithms []string `json:"algorithms,omitempty"`
	// Scopes are the platform's scopes that its tokens may carry; default: mp1.
	Scopes []string `json:"scopes,omitempty"`
	// Grant lists scopes that every one of its tokens has here, whatever it says.
	Grant []string `json:"grant,omitempty"`
	// SubjectClaim names the claim that holds the appInstanceId; default: sub.
	SubjectClaim string `json:"subjectClaim,omitempty"`
}

// CertRule says which caller the holder of a client certificate is.
type CertRule struct {
	// URI, DNS, Email and CommonName are patterns for a name in the certificate; {caller} stands for the name of the caller. One is given.
	URI        string `json:"uri,omitempty"`
	DNS        string `json:"dns,omitempty"`
	Email      string `json:"email,omitempty"`
	CommonName string `json:"commonName,omitempty"`
	// Scopes are what the holder may do.
	Scopes []string `json:"scopes"`
	// Caller is the name of the caller if the pattern has no {caller}.
	Caller string `json:"caller,omitempty"`
}

// Algorithms are the JWS algorithms that may sign tokens. Those with shared keys and "none" are excluded.
var Algorithms = []string{"ES256", "RS256", "RS512", "EdDSA"}

// The scopes of the platform.
const (
	ScopeMp1 = state.ScopeMp1
	ScopeMm5 = state.ScopeMm5
	ScopeOps = state.ScopeOps
)

// Scopes lists all of them.
var Scopes = []string{ScopeMp1, ScopeMm5, ScopeOps}

// placeholder stands for the name of the caller.
const placeholder = "{caller}"

// Validate checks the settings.
func (c *Config) Validate() error {
	var faults []error
	bad := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if c.Audience == "" {
		bad("auth.audience must not be empty")
	}
	if c.Leeway < 0 || c.Leeway > 5*time.Minute {
		bad("auth.leeway must be 0s to 5m, not %s", c.Leeway)
	}
	if c.TokenCache < 1 {
		bad("auth.tokenCache must be at least 1, not %d", c.TokenCache)
	}
	for _, p := range c.Proxies {
		if _, err := netip.ParsePrefix(p); err != nil {
			bad("proxies: %q is not a network such as 10.0.0.0/8", p)
		}
	}
	seen := make(map[string]bool)
	for i := range c.Issuers {
		for _, fault := range c.Issuers[i].faults() {
			bad("auth.issuers[%d].%s", i, fault)
		}
		if seen[c.Issuers[i].Issuer] {
			bad("auth.issuers[%d].issuer: %q occurs twice", i, c.Issuers[i].Issuer)
		}
		seen[c.Issuers[i].Issuer] = true
	}
	for i := range c.Certificates {
		for _, fault := range c.Certificates[i].faults() {
			bad("auth.clientCertificates[%d]%s", i, fault)
		}
	}
	return errors.Join(faults...)
}

func (t *TrustedIssuer) faults() []string {
	var list []string
	if t.Issuer == "" {
		list = append(list, "issuer is required")
	}
	if (t.JWKSURL == "") == (t.JWKSFile == "") {
		list = append(list, "jwksUrl: give either this or jwksFile")
	}
	if t.JWKSURL != "" {
		if u, err := url.Parse(t.JWKSURL); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			list = append(list, fmt.Sprintf("jwksUrl: %q is not an absolute http or https URL", t.JWKSURL))
		} else if u.Scheme == "http" && !isLoopbackHost(u.Hostname()) {
			list = append(list, fmt.Sprintf("jwksUrl: %q must be https: whoever can change the answer could sign tokens", t.JWKSURL))
		}
	}
	for _, a := range t.Algorithms {
		if !slices.Contains(externalAlgorithms, a) {
			list = append(list, fmt.Sprintf("algorithms: %q is not one of %s", a, strings.Join(externalAlgorithms, ", ")))
		}
	}
	return append(append(list, scopeFaults("scopes", t.Scopes)...), scopeFaults("grant", t.Grant)...)
}

// externalAlgorithms are the algorithms that other issuers may sign with.
var externalAlgorithms = []string{"ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA"}

func isLoopbackHost(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

func scopeFaults(name string, scopes []string) []string {
	var list []string
	for _, s := range scopes {
		if !slices.Contains(Scopes, s) {
			list = append(list, fmt.Sprintf("%s: %q is not one of %s", name, s, strings.Join(Scopes, ", ")))
		}
	}
	return list
}

func (r *CertRule) faults() []string {
	var list []string
	patterns := slices.DeleteFunc([]string{r.URI, r.DNS, r.Email, r.CommonName}, func(s string) bool { return s == "" })
	switch {
	case len(patterns) != 1:
		list = append(list, ": give one of uri, dns, email and commonName")
	case strings.Count(patterns[0], placeholder) > 1:
		list = append(list, ": {caller} may occur once")
	case strings.Contains(patterns[0], placeholder) == (r.Caller != ""):
		list = append(list, ": say who the caller is, either with {caller} in the pattern or with caller")
	}
	if len(r.Scopes) == 0 {
		list = append(list, ".scopes is required")
	}
	for _, f := range scopeFaults("scopes", r.Scopes) {
		list = append(list, "."+f)
	}
	return list
}
