package protect_test

import (
	"net/netip"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/openmep/mep/dnsagent/protect"
)

func prefixMap(t require.TestingT, prefixes ...string) *protect.Map[string] {
	var entries []protect.Entry[string]
	for _, p := range prefixes {
		entries = append(entries, protect.Entry[string]{Prefix: netip.MustParsePrefix(p), Value: p})
	}
	m, err := protect.NewMap(entries)
	require.NoError(t, err)
	return m
}

func TestTheMostSpecificPrefixCounts(t *testing.T) {
	m := prefixMap(t, "10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.255/32", "10.255.255.255/32", "0.0.0.0/1", "255.255.255.255/32",
		"2001:db8::/32", "2001:db8:0:1::/64", "ffff::/16", "::ffff:192.0.2.0/120", "fe80::/10")
	for addr, want := range map[string]string{
		"10.1.2.3": "10.1.2.0/24", "10.1.2.255": "10.1.2.255/32", "10.1.3.0": "10.1.0.0/16", "10.2.0.0": "10.0.0.0/8",
		"10.255.255.255": "10.255.255.255/32", "11.0.0.0": "0.0.0.0/1", "127.255.255.255": "0.0.0.0/1", "128.0.0.0": "",
		"0.0.0.0": "0.0.0.0/1", "255.255.255.255": "255.255.255.255/32", "255.255.255.254": "",
		"2001:db8::1": "2001:db8::/32", "2001:db8:0:1:ffff:ffff:ffff:ffff": "2001:db8:0:1::/64", "2001:db8:0:2::": "2001:db8::/32",
		"2001:db9::": "", "::": "", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff": "ffff::/16",
		"::ffff:10.1.2.3": "10.1.2.0/24", "192.0.2.9": "::ffff:192.0.2.0/120", "fe80::1%eth0": "fe80::/10",
	} {
		got, ok := m.Lookup(netip.MustParseAddr(addr))
		require.Equal(t, want, got, addr)
		require.Equal(t, want != "", ok, addr)
	}
}

func TestFamiliesAreApart(t *testing.T) {
	m := prefixMap(t, "::/0")
	_, ok := m.Lookup(netip.MustParseAddr("192.0.2.1"))
	require.False(t, ok)
	got, _ := m.Lookup(netip.MustParseAddr("2001:db8::1"))
	require.Equal(t, "::/0", got)
	m = prefixMap(t, "0.0.0.0/0")
	_, ok = m.Lookup(netip.MustParseAddr("2001:db8::1"))
	require.False(t, ok)
	got, _ = m.Lookup(netip.MustParseAddr("::ffff:192.0.2.1"))
	require.Equal(t, "0.0.0.0/0", got)
}

func TestMapsOfNothing(t *testing.T) {
	var none *protect.Map[int]
	_, ok := none.Lookup(netip.MustParseAddr("::1"))
	require.False(t, ok)
	_, ok = prefixMap(t).Lookup(netip.MustParseAddr("192.0.2.1"))
	require.False(t, ok)
	_, ok = prefixMap(t, "0.0.0.0/0", "::/0").Lookup(netip.Addr{})
	require.False(t, ok)
}

func TestPrefixesThatAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		prefixes []netip.Prefix
		want     string
	}{
		"twice":               {[]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8")}, "10.0.0.0/8 comes twice"},
		"twice, other bits":   {[]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("10.1.2.3/8")}, "10.0.0.0/8 comes twice"},
		"twice, once mapped":  {[]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::ffff:10.0.0.0/104")}, "twice"},
		"none":                {[]netip.Prefix{{}}, "not a prefix"},
		"longer than allowed": {[]netip.Prefix{netip.PrefixFrom(netip.MustParseAddr("10.0.0.0"), 33)}, "not a prefix"},
	} {
		t.Run(name, func(t *testing.T) {
			var entries []protect.Entry[int]
			for _, p := range c.prefixes {
				entries = append(entries, protect.Entry[int]{Prefix: p})
			}
			_, err := protect.NewMap(entries)
			require.ErrorContains(t, err, c.want)
		})
	}
}

// nearby generates addresses of both families, many of which lie in the same prefixes or at their ends.
func nearby() *rapid.Generator[netip.Addr] {
	octet := rapid.SampledFrom([]byte{0, 0, 1, 127, 128, 255, 255})
	return rapid.Custom(func(t *rapid.T) netip.Addr {
		octets := rapid.SliceOfN(octet, 16, 16).Draw(t, "octets")
		if rapid.Bool().Draw(t, "IPv4") {
			return netip.AddrFrom4([4]byte(octets[:4]))
		}
		return netip.AddrFrom16([16]byte(octets))
	})
}

// TestAMapIsWhatTheListIs compares a map with a linear search through all prefixes.
func TestAMapIsWhatTheListIs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := map[netip.Prefix]int{}
		var entries []protect.Entry[int]
		for i := range rapid.IntRange(0, 40).Draw(t, "prefixes") {
			a := nearby().Draw(t, "address")
			p := netip.PrefixFrom(a, rapid.IntRange(0, a.BitLen()).Draw(t, "bits"))
			if _, twice := list[p.Masked()]; twice {
				continue
			}
			list[p.Masked()] = i
			entries = append(entries, protect.Entry[int]{Prefix: p, Value: i})
		}
		m, err := protect.NewMap(entries)
		require.NoError(t, err)
		for range 40 {
			a := nearby().Draw(t, "looked up")
			best, want, found := -1, 0, false
			for p, value := range list {
				if p.Contains(a) && p.Bits() > best {
					best, want, found = p.Bits(), value, true
				}
			}
			got, ok := m.Lookup(a)
			require.Equal(t, found, ok, a.String())
			require.Equal(t, want, got, a.String())
		}
	})
}

func TestLookingUpAllocatesNothing(t *testing.T) {
	m := prefixMap(t, "10.0.0.0/8", "2001:db8::/32")
	v4, v6 := netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("2001:db8::1")
	require.Zero(t, testing.AllocsPerRun(100, func() {
		m.Lookup(v4)
		m.Lookup(v6)
	}))
}

func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{1, 10, 1000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			var entries []protect.Entry[int]
			for i := range n {
				p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)
				entries = append(entries, protect.Entry[int]{Prefix: p, Value: i})
			}
			m, err := protect.NewMap(entries)
			require.NoError(b, err)
			a := netip.MustParseAddr("10.0.0.77")
			b.ReportAllocs()
			for b.Loop() {
				m.Lookup(a)
			}
		})
	}
}
