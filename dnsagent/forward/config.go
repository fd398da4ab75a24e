package forward

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/openmep/mep/dnsagent/wire"
)

// Defaults of a Config.
const (
	DefaultTimeout        = 4 * time.Second
	DefaultPending        = 4096
	DefaultUDPSize        = 1232
	DefaultMaxTTL         = 24 * time.Hour
	DefaultMaxNegativeTTL = time.Hour
)

// Bounds of Config.UDPSize.
const (
	minUDPSize = 512
	maxUDPSize = 4096
)

// maxZoneName is the maximum length of a zone's name in octets. It leaves room for the names below the zone that probes for loops ask
// for.
const maxZoneName = 180

// maxTTL is the greatest TTL (RFC 2181 8).
const maxTTL = time.Duration(1<<31-1) * time.Second

// tries is how many times silent upstreams are asked within the timeout of a question.
const tries = 4

// Config holds the settings of a Forwarder.
type Config struct {
	// Zones say which upstreams to ask for which names. A name belongs to the zone that has most labels in common with it; names in no
	// other zone belong to the root.
	Zones []Zone
	// Timeout is how long a question may take in all; 0 or less means DefaultTimeout. When an upstream has not answered after a quarter
	// of it, the next one is asked too; the answer of the first still counts.
	Timeout time.Duration
	// Pending is the maximum number of questions in flight; 0 or less means DefaultPending. Further questions fail at once.
	Pending int
	// RandomCase sends names with random capitals and expects the response to preserve them, which makes answers harder to forge. When
	// they are lost, the question is asked again over TCP; an upstream that loses them there too is soon asked without.
	RandomCase bool
	// UDPSize is the size offered in EDNS in octets, 512 to 4096; 0 means DefaultUDPSize.
	UDPSize int
	// CacheBytes is how much memory, in octets, answers may take; at 0 or less none is kept.
	CacheBytes int64
	// MaxTTL bounds the lifetime of answers, MaxNegativeTTL that of negative answers; 0 or less means DefaultMaxTTL and
	// DefaultMaxNegativeTTL.
	MaxTTL, MaxNegativeTTL time.Duration
	// Stale is how much longer an answer is kept in case no upstream answers; 0 or less means not at all.
	Stale time.Duration
	// OwnAddr reports whether an address is one of this server's own; an upstream at such an address is an error. If nil, no address is.
	OwnAddr func(netip.AddrPort) bool
}

// Zone is a domain and the servers to ask for names in it.
type Zone struct {
	// Name is in lower case.
	Name wire.Name
	// Upstreams are asked in this order, healthy ones first. A zone without upstreams is never forwarded.
	Upstreams []Upstream
}

// check fills in defaults and reports faults.
func (c *Config) check() error {
	if c.Timeout <= 0 {
		c.Timeout = DefaultTimeout
	}
	if c.Pending <= 0 {
		c.Pending = DefaultPending
	}
	if c.UDPSize == 0 {
		c.UDPSize = DefaultUDPSize
	}
	if c.MaxTTL <= 0 {
		c.MaxTTL = DefaultMaxTTL
	}
	if c.MaxNegativeTTL <= 0 {
		c.MaxNegativeTTL = DefaultMaxNegativeTTL
	}
	c.MaxTTL, c.MaxNegativeTTL = min(c.MaxTTL, maxTTL), min(c.MaxNegativeTTL, maxTTL)
	c.CacheBytes, c.Stale = max(c.CacheBytes, 0), max(c.Stale, 0)
	var faults []error
	if c.UDPSize < minUDPSize || c.UDPSize > maxUDPSize {
		faults = append(faults, fmt.Errorf("the size offered to upstreams is %d: %d to %d is possible", c.UDPSize, minUDPSize, maxUDPSize))
	}
	seen := make(map[wire.Name]bool)
	c.Zones = slices.Clone(c.Zones)
	for i := range c.Zones {
		z := &c.Zones[i]
		z.Upstreams = unique(z.Upstreams)
		if seen[z.Name] {
			faults = append(faults, fmt.Errorf("the zone %s is there twice", z.Name))
		}
		seen[z.Name] = true
		if len(z.Name) == 0 || len(z.Name) > maxZoneName {
			faults = append(faults, fmt.Errorf("the name of the zone %s has %d octets: 1 to %d are possible", z.Name, len(z.Name), maxZoneName))
		}
		for _, u := range z.Upstreams {
			if err := u.check(); err != nil {
				faults = append(faults, fmt.Errorf("zone %s: %w", z.Name, err))
			} else if c.OwnAddr != nil && c.OwnAddr(u.Addr) {
				faults = append(faults, fmt.Errorf("zone %s: upstream %s is this server itself", z.Name, u))
			}
		}
	}
	return errors.Join(faults...)
}

func unique(list []Upstream) []Upstream {
	var kept []Upstream
	for _, u := range list {
		if !slices.ContainsFunc(kept, u.same) {
			kept = append(kept, u)
		}
	}
	return kept
}

// settings is a Config in force. It is immutable.
type settings struct {
	Config
	zones   map[wire.Name]*zone
	longest int   // length of the longest zone name
	root    *zone // nil when there is no root zone
}

// perZone returns how many questions may be in flight for one zone. A zone whose upstreams are silent thus leaves some to the others.
func (s *settings) perZone() int {
	if len(s.zones) < 2 {
		return s.Pending
	}
	return max(1, s.Pending-s.Pending/4)
}

type zone struct {
	name      wire.Name
	upstreams []*upstream
}

// answers reports whether an upstream of the zone is healthy.
func (z *zone) answers() bool {
	return z != nil && slices.ContainsFunc(z.upstreams, func(u *upstream) bool { return u.health() == healthy })
}

// zoneOf returns the zone a name belongs to, or nil. It does not allocate.
func (s *settings) zoneOf(name wire.Name) *zone {
	if s.longest > 1 {
		for ; len(name) > 1; name = name.Parent() {
			if len(name) <= s.longest {
				if z := s.zones[name]; z != nil {
					return z
				}
			}
		}
	}
	return s.root
}

// same reports whether both zones are forwarded to the same upstreams, in any order.
func (z *zone) same(other *zone) bool {
	if z == nil || other == nil {
		return z == other
	}
	if len(z.upstreams) != len(other.upstreams) {
		return false
	}
	for _, u := range z.upstreams {
		if !slices.Contains(other.upstreams, u) {
			return false
		}
	}
	return true
}

// shares reports whether the two zones have an upstream in common.
func (z *zone) shares(other *zone) bool {
	return z != nil && other != nil && slices.ContainsFunc(z.upstreams, func(u *upstream) bool {
		return slices.Contains(other.upstreams, u)
	})
}
