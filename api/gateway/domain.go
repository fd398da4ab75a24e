package gateway

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// InstancesLabel is the label below which instances have their host names in the domain of services: {serInstanceId}.instances.{domain}.
const InstancesLabel = "instances"

const (
	// maxLabel is the maximum length of a label (RFC 1035 2.3.4).
	maxLabel = 63
	// maxDomain leaves room for any service label in front.
	maxDomain = maxHost - maxLabel - len(".")
)

// IsLabel reports whether s is a valid host name label: 1 to 63 ASCII letters, digits and hyphens, without a hyphen at either end (RFC 1123
// 2.1). A service whose serName is a label has its own host name in the domain of services.
func IsLabel(s string) bool {
	if s == "" || len(s) > maxLabel || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if !alphanumeric(s[i]) && s[i] != '-' {
			return false
		}
	}
	return true
}

// CanonicalDomain returns a domain of services in the form used for comparison: in lower case, without a trailing dot. The error completes
// a sentence that begins with the name of the setting.
func CanonicalDomain(s string) (string, error) {
	domain := strings.ToLower(strings.TrimSuffix(s, "."))
	if len(domain) > maxDomain {
		return "", fmt.Errorf("must be at most %d bytes long, with room for the names of services in front", maxDomain)
	}
	last := ""
	for label := range strings.SplitSeq(domain, ".") {
		if !IsLabel(label) {
			return "", fmt.Errorf("must be a domain such as mec.example, without wildcard and port, not %q", s)
		}
		last = label
	}
	if strings.Trim(last, "0123456789") == "" {
		return "", errors.New("must be a domain, and not an address")
	}
	return domain, nil
}

// HostBelow returns the host of a URL and reports whether it is a name below the domain of services. Apps choose the names there, so
// requests to such a host may reach a service. Nothing is below "" or an invalid domain.
func HostBelow(rawURL, domain string) (host string, below bool) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return "", false
	}
	canonical, err := CanonicalDomain(domain)
	return u.Hostname(), err == nil && strings.HasSuffix(strings.ToLower(strings.TrimSuffix(u.Hostname(), ".")), "."+canonical)
}

// CheckOutside returns an error if rawURL, one of the platform's own URLs, has a host below the domain of services.
func CheckOutside(setting, rawURL, domain string) error {
	host, below := HostBelow(rawURL, domain)
	if !below {
		return nil
	}
	return fmt.Errorf("%s: its host %s is below gateway.serviceDomain, where all names are those of services", setting, host)
}
