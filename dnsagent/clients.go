package dnsagent

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/openmep/mep/dnsagent/protect"
)

// clients holds the networks that may query, those that may use recursion and those without a rate limit. An empty map
// means nobody, a nil map everybody.
type clients struct {
	query, recursion, unlimited *protect.Map[struct{}]
}

// likeRecursion stands for the networks of dns.allowRecursion in dns.rate.exempt.
const likeRecursion = "dns.allowRecursion"

// clients returns which clients may do what. An empty list means nobody.
func (c *Config) clients() (clients, error) {
	var may clients
	var errQuery, errRecursion, errExempt error
	may.query, errQuery = networks("dns.allowQuery", c.AllowQuery)
	if everybody(c.AllowQuery) { // saves a lookup for each query
		may.query = nil
	}
	may.recursion, errRecursion = networks("dns.allowRecursion", c.AllowRecursion)
	var exempt []string
	for _, s := range c.RateExempt {
		if s == likeRecursion {
			exempt = append(exempt, c.AllowRecursion...)
			continue
		}
		exempt = append(exempt, s)
	}
	may.unlimited, errExempt = networks("dns.rate.exempt", exempt)
	if errRecursion != nil && slices.Contains(c.RateExempt, likeRecursion) {
		errExempt = nil // the same error again
	}
	return may, errors.Join(errQuery, errRecursion, errExempt)
}

// everybody reports whether a list of networks contains all addresses.
func everybody(list []string) bool {
	var v4, v6 bool
	for _, s := range list {
		p, err := network(s)
		all := err == nil && p.Bits() == 0
		v4, v6 = v4 || all && p.Addr().Is4(), v6 || all && p.Addr().Is6()
	}
	return v4 && v6
}

// network parses a network, or an address as a network of one address.
func network(s string) (netip.Prefix, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Masked(), nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, fmt.Errorf("%q is neither a network such as 10.0.0.0/8 nor an address", s)
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}

// networks parses a list of networks into a set.
func networks(setting string, list []string) (*protect.Map[struct{}], error) {
	var entries []protect.Entry[struct{}]
	for _, s := range list {
		p, err := network(s)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", setting, err)
		}
		if !slices.ContainsFunc(entries, func(e protect.Entry[struct{}]) bool { return e.Prefix == p }) {
			entries = append(entries, protect.Entry[struct{}]{Prefix: p})
		}
	}
	m, err := protect.NewMap(entries)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", setting, err)
	}
	return m, nil
}
