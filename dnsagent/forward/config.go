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

// Bounds of what a UDP response may have.
const (
	minUDPSize = 512
	maxUDPSize = 4096
)

// maxZoneName is how long the name of a zone may be in octets, so that names below it can be asked for to find loops.
const maxZoneName = 180

// maxTTL is the greatest TTL there is (RFC 2181 8).
const maxTTL = time.Duration(1<<31-1) * time.Second

// tries is how often upstreams that do not answer are asked in the time for a question.
const tries = 4

// Config is the settings of a forwarder.
type Config struct {
	// Zones say whom to ask for what; a name belongs to the zone that has most labels in common with it. The root is that of all names
	// that are in no other.
	Zones []Zone
	// Timeout is how long a question may take in all; 0 or less counts as DefaultTimeout. When an upstream has not answered after a quarter
	// of it the next one is asked, too; its answer still counts.
	Timeout time.Duration
	// Pending is how many questions may be under way at most; 0 or less counts as DefaultPending. Further ones fail at once.
	Pending int
	// RandomCase mixes capitals into the names that are asked for and expects to see them again, which makes answers harder to forge.
	// Where they are lost the question is asked again over TCP; an upstream that loses them there, too, is asked without before long.
	RandomCase bool
	// UDPSize is the size offered in EDNS in octets, 512 to 4096; 0 counts as DefaultUDPSize.
	UDPSize int
	// CacheBytes is how much memory may be taken by answers in octets; at 0 or less none is kept.
	CacheBytes int64
	// MaxTTL and MaxNegativeTTL are how long answers are good at most, and those that something does not exist; 0 or less counts as
	// DefaultMaxTTL and DefaultMaxNegativeTTL.
	MaxTTL, MaxNegativeTTL time.Duration
	// Stale is how much longer an answer is kept for the case that no upstream answers; 0 or less is not at all.
	Stale time.Duration
	// OwnAddr reports whether this server itself is reached at an address: such an upstream is an error. Nil: none is.
	OwnAddr func(netip.AddrPort) bool
}

// Zone is a domain and the servers to ask for names in it.
type Zone struct {
	// Name is in lower case.
	Name wire.Name
	// Upstreams are asked in this order. A zone without any is never forwarded.
	Upstreams []Upstream
}

// check finds faults and fills in defaults.
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

// settings is a Config in force. It does not change.
type settings struct {
	Config
	zones   map[wire.Name]*zone
	longest int   // the longest name of a zone
	root    *zone // nil when there is none for all names
}

// perZone is how many questions may be under way to one zone: one whose upstreams are silent leaves some to the others.
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

// zoneOf finds the zone a name belongs to, nil when there is none. It does not allocate.
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

// shares reports whether an upstream of one is asked by the other too.
func (z *zone) shares(other *zone) bool {
	return z != nil && other != nil && slices.ContainsFunc(z.upstreams, func(u *upstream) bool {
		return slices.Contains(other.upstreams, u)
	})
}
