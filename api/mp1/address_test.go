package mp1_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/mp1"
)

func TestParseAddressRange(t *testing.T) {
	for name, x := range map[string]struct{ value, from, to, shown string }{
		"IPv4 address":                {"10.0.0.1", "10.0.0.1", "10.0.0.1", "10.0.0.1"},
		"IPv4 prefix":                 {"10.0.0.0/8", "10.0.0.0", "10.255.255.255", "10.0.0.0/8"},
		"IPv4 prefix of one":          {"10.0.0.1/32", "10.0.0.1", "10.0.0.1", "10.0.0.1"},
		"all of IPv4":                 {"0.0.0.0/0", "0.0.0.0", "255.255.255.255", "0.0.0.0/0"},
		"IPv4 mask":                   {"10.0.0.0/255.0.0.0", "10.0.0.0", "10.255.255.255", "10.0.0.0/8"},
		"IPv4 mask within a byte":     {"10.1.16.0/255.255.240.0", "10.1.16.0", "10.1.31.255", "10.1.16.0/20"},
		"IPv4 mask of no bits":        {"0.0.0.0/0.0.0.0", "0.0.0.0", "255.255.255.255", "0.0.0.0/0"},
		"IPv4 mask of all bits":       {"10.0.0.1/255.255.255.255", "10.0.0.1", "10.0.0.1", "10.0.0.1"},
		"IPv4 range":                  {"10.0.0.1-10.0.0.9", "10.0.0.1", "10.0.0.9", "10.0.0.1-10.0.0.9"},
		"IPv4 range of one":           {"10.0.0.1-10.0.0.1", "10.0.0.1", "10.0.0.1", "10.0.0.1"},
		"IPv4 range that a prefix is": {"10.0.0.0-10.0.0.255", "10.0.0.0", "10.0.0.255", "10.0.0.0/24"},
		"IPv4 range off by one":       {"10.0.0.0-10.0.0.254", "10.0.0.0", "10.0.0.254", "10.0.0.0-10.0.0.254"},
		"IPv4 range of prefixes":      {"10.0.0.0/24-10.0.2.0/24", "10.0.0.0", "10.0.2.255", "10.0.0.0-10.0.2.255"},
		"IPv4 range to a prefix":      {"10.0.0.7-10.0.1.0/24", "10.0.0.7", "10.0.1.255", "10.0.0.7-10.0.1.255"},
		"IPv6 address":                {"2001:DB8::1", "2001:db8::1", "2001:db8::1", "2001:db8::1"},
		"IPv6 prefix": {
			"2001:db8::/32", "2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db8::/32",
		},
		"all of IPv6": {"::/0", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::/0"},
		"IPv6 range":  {"2001:db8::1-2001:db8::ff", "2001:db8::1", "2001:db8::ff", "2001:db8::1-2001:db8::ff"},
		"IPv6 range of prefixes": {
			"2001:db8::/48-2001:db8:ff::/48", "2001:db8::", "2001:db8:ff:ffff:ffff:ffff:ffff:ffff", "2001:db8::/40",
		},
		"IPv6 range of prefixes that is none": {
			"2001:db8:1::/48-2001:db8:ff::/48", "2001:db8:1::", "2001:db8:ff:ffff:ffff:ffff:ffff:ffff",
			"2001:db8:1::-2001:db8:ff:ffff:ffff:ffff:ffff:ffff",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := mp1.ParseAddressRange(x.value)
			require.NoError(t, err)
			require.Equal(t, mp1.AddressRange{From: netip.MustParseAddr(x.from), To: netip.MustParseAddr(x.to)}, r)
			require.Equal(t, x.shown, r.String())
			p, ok := r.Prefix()
			require.Equal(t, !strings.Contains(x.shown, "-"), ok)
			if ok {
				require.Equal(t, r.From, p.Addr())
				require.True(t, p.Contains(r.To))
			}
		})
	}
}

func TestAnAddressRangeThatIsRefusedIsNamed(t *testing.T) {
	const grammar = "must be an address, a prefix or a range of addresses, not "
	for name, x := range map[string]struct{ value, reason string }{
		"nothing":                    {"", grammar + `""`},
		"a name":                     {"gateway", grammar + `"gateway"`},
		"spaces":                     {" 10.0.0.1", grammar + `" 10.0.0.1"`},
		"spaces in a range":          {"10.0.0.1 - 10.0.0.9", grammar + `"10.0.0.1 - 10.0.0.9"`},
		"IPv4 byte too large":        {"10.0.0.256", grammar + `"10.0.0.256"`},
		"IPv4 leading zero":          {"10.0.0.01", grammar + `"10.0.0.01"`},
		"IPv4 too short":             {"10.0.0", grammar + `"10.0.0"`},
		"IPv6 too long":              {"1:2:3:4:5:6:7:8:9", grammar + `"1:2:3:4:5:6:7:8:9"`},
		"no end":                     {"10.0.0.1-", grammar + `"10.0.0.1-"`},
		"no start":                   {"-10.0.0.1", grammar + `"-10.0.0.1"`},
		"three ends":                 {"10.0.0.1-10.0.0.2-10.0.0.3", grammar + `"10.0.0.1-10.0.0.2-10.0.0.3"`},
		"IPv4 length":                {"10.0.0.0/33", `must be a prefix with a length of 0 to 32 or a mask of leading ones, not "10.0.0.0/33"`},
		"no length":                  {"10.0.0.0/", `must be a prefix with a length of 0 to 32 or a mask`},
		"negative length":            {"10.0.0.0/-1", `must be a prefix with a length of 0 to 32 or a mask of leading ones, not "10.0.0.0/-1"`},
		"length with a sign":         {"10.0.0.0/+8", `must be a prefix with a length of 0 to 32 or a mask`},
		"length with a zero":         {"10.0.0.0/08", `must be a prefix with a length of 0 to 32 or a mask`},
		"mask with a hole":           {"10.0.0.0/255.0.255.0", `must be a prefix with a length of 0 to 32 or a mask of leading ones, not "10.0.0.0/255.0.255.0"`},
		"inverted mask":              {"10.0.0.0/0.255.255.255", `mask of leading ones`},
		"mask that is none":          {"10.0.0.0/255.0.0", `mask of leading ones`},
		"IPv6 as mask":               {"10.0.0.0/::1.2.3.4", `mask of leading ones`},
		"IPv6 length":                {"2001:db8::/129", `must be a prefix with a length of 0 to 128, not "2001:db8::/129"`},
		"IPv6 mask":                  {"2001:db8::/ffff:ffff::", `must be a prefix with a length of 0 to 128`},
		"IPv4 bits beyond length":    {"10.0.0.1/8", `must be "10.0.0.0/8" (no bits may be set beyond the length of a prefix), not "10.0.0.1/8"`},
		"IPv4 bits beyond mask":      {"10.0.0.1/255.0.0.0", `must be "10.0.0.0/8" (no bits`},
		"IPv6 bits beyond length":    {"2001:db8::1/32", `must be "2001:db8::/32" (no bits may be set beyond the length of a prefix), not "2001:db8::1/32"`},
		"range backwards":            {"10.0.0.9-10.0.0.1", `must be a range that does not end before it starts, not "10.0.0.9-10.0.0.1"`},
		"range of two families":      {"10.0.0.1-2001:db8::1", `must be a range within IPv4 or within IPv6, not "10.0.0.1-2001:db8::1"`},
		"second end":                 {"10.0.0.0-10.0.1.1/24", `must be "10.0.1.0/24" (no bits`},
		"zone":                       {"fe80::1%eth0", `must be without a zone, not "fe80::1%eth0"`},
		"zone in a prefix":           {"fe80::%eth0/64", `must be without a zone`},
		"IPv4 in IPv6":               {"::ffff:10.0.0.1", `must be in the notation of IPv4 (10.0.0.1), not "::ffff:10.0.0.1"`},
		"IPv4 in IPv6, prefix":       {"::ffff:10.0.0.0/104", `must be in the notation of IPv4 (10.0.0.0), not`},
		"IPv6 range to IPv4 in IPv6": {"::1-::/80", `must be a range that does not end among the IPv4 addresses`},
		"long value":                 {strings.Repeat("é", 100), grammar + `"` + strings.Repeat("é", 64) + `…"`},
		"unprintable value":          {"\x1b[2J\xff", grammar + `"\x1b[2J\xff"`},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := mp1.ParseAddressRange(x.value)
			require.ErrorContains(t, err, x.reason)
			require.Zero(t, r)
		})
	}
}

func TestAddressRangeContains(t *testing.T) {
	for name, x := range map[string]struct {
		value   string
		in, out []string
	}{
		"IPv4 range": {
			"10.0.0.1-10.0.1.0",
			[]string{"10.0.0.1", "10.0.0.200", "10.0.1.0"},
			[]string{"10.0.0.0", "10.0.1.1", "::", "2001:db8::1", "::ffff:10.0.0.1"},
		},
		"IPv6 prefix": {
			"fe80::/64",
			[]string{"fe80::", "fe80::ffff:ffff:ffff:ffff"},
			[]string{"fe80:0:0:1::", "fe7f:ffff::", "fe80::1%eth0", "10.0.0.1"},
		},
		"all of IPv6": {"::/0", []string{"::", "ffff::"}, []string{"0.0.0.0"}},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := mp1.ParseAddressRange(x.value)
			require.NoError(t, err)
			for _, a := range x.in {
				require.True(t, r.Contains(netip.MustParseAddr(a)), a)
			}
			for _, a := range x.out {
				require.False(t, r.Contains(netip.MustParseAddr(a)), a)
			}
			require.False(t, r.Contains(netip.Addr{}))
		})
	}
}

func TestTheZeroAddressRangeIsNothing(t *testing.T) {
	var r mp1.AddressRange
	require.False(t, r.Contains(netip.Addr{}))
	require.False(t, r.Contains(netip.IPv4Unspecified()))
	_, ok := r.Prefix()
	require.False(t, ok)
	require.NotPanics(t, func() { _ = r.String() })
}

func TestParseAddress(t *testing.T) {
	for name, x := range map[string]struct{ value, reason string }{
		"IPv4":           {"192.0.2.1", ""},
		"IPv6":           {"2001:db8::1", ""},
		"nothing":        {"", `must be an IPv4 or IPv6 address, not ""`},
		"prefix":         {"10.0.0.0/8", `must be an IPv4 or IPv6 address, not "10.0.0.0/8"`},
		"port":           {"10.0.0.1:80", `must be an IPv4 or IPv6 address`},
		"brackets":       {"[::1]", `must be an IPv4 or IPv6 address`},
		"zone":           {"fe80::1%1", `must be without a zone, not "fe80::1%1"`},
		"IPv4 in IPv6":   {"::ffff:192.0.2.1", `must be in the notation of IPv4 (192.0.2.1)`},
		"more than both": {"192.0.2.1,2001:db8::1", `must be an IPv4 or IPv6 address`},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := mp1.ParseAddress(x.value)
			if x.reason != "" {
				require.ErrorContains(t, err, x.reason)
				require.Zero(t, a)
				return
			}
			require.NoError(t, err)
			require.Equal(t, netip.MustParseAddr(x.value), a)
		})
	}
}

func TestParsePortRange(t *testing.T) {
	for value, want := range map[string]mp1.PortRange{
		"1":         {From: 1, To: 1},
		"80":        {From: 80, To: 80},
		"65535":     {From: 65535, To: 65535},
		"8000-8100": {From: 8000, To: 8100},
		"1-65535":   {From: 1, To: 65535},
		"80-80":     {From: 80, To: 80},
	} {
		r, err := mp1.ParsePortRange(value)
		require.NoError(t, err, value)
		require.Equal(t, want, r, value)
		require.True(t, r.Contains(want.From) && r.Contains(want.To), value)
		require.False(t, r.Contains(want.From-1) || want.To < 65535 && r.Contains(want.To+1), value)
	}
	require.Equal(t, "80", mp1.PortRange{From: 80, To: 80}.String())
	require.Equal(t, "80-81", mp1.PortRange{From: 80, To: 81}.String())

	for _, value := range []string{
		"", "0", "65536", "-1", "+80", " 80", "80 ", "8 0", "080", "00", "0x50", "http", "80-", "-80", "80-90-100", "0-10", "80–90",
		"80, 81", "1-65536", "99999999999999999999", "８０",
	} {
		r, err := mp1.ParsePortRange(value)
		require.ErrorContains(t, err, "must be a port of 1 to 65535 or a range of ports, not ", value)
		require.Zero(t, r, value)
	}
	_, err := mp1.ParsePortRange("81-80")
	require.EqualError(t, err, `must be a range that does not end before it starts, not "81-80"`)
}

func TestParseProtocol(t *testing.T) {
	for value, want := range map[string]uint8{
		"0": 0, "6": 6, "17": 17, "255": 255, "icmp": 1, "igmp": 2, "ipip": 4, "tcp": 6, "TCP": 6, "Udp": 17, "ipv6": 41, "gre": 47,
		"esp": 50, "AH": 51, "icmpv6": 58, "IPv6-ICMP": 58, "ospf": 89, "sctp": 132, "UDPLite": 136,
	} {
		n, err := mp1.ParseProtocol(value)
		require.NoError(t, err, value)
		require.Equal(t, want, n, value)
	}
	for _, value := range []string{"", "256", "-1", "+6", "06", "6 ", "any", "*", "tcp,udp", "ANY_PROTOCOL", "１"} {
		_, err := mp1.ParseProtocol(value)
		require.ErrorContains(t, err, "must be the number of an IP protocol, 0 to 255, or a name such as tcp, udp, sctp or icmp, not ", value)
	}
}

func TestParseMAC(t *testing.T) {
	for _, value := range []string{"00:00:5e:00:53:01", "00-00-5E-00-53-01"} {
		mac, err := mp1.ParseMAC(value)
		require.NoError(t, err, value)
		require.Equal(t, "00:00:5e:00:53:01", mac.String())
	}
	for name, value := range map[string]string{
		"nothing": "", "too short": "00:00:5e:00:53", "64 bits": "02:00:5e:10:00:00:00:01", "dots": "0000.5e00.5301", "no separator": "00005e005301",
		"mixed": "00:00-5e:00:53:01", "no digit": "00:00:5g:00:53:01", "other separator": "00_00_5e_00_53_01", "single digits": "0:0:5e:0:53:1:0:0:0",
	} {
		mac, err := mp1.ParseMAC(value)
		require.ErrorContains(t, err, "must be a MAC address such as 00:00:5e:00:53:01, not ", name)
		require.Nil(t, mac, name)
	}
}

func TestParsersDoNotAllocate(t *testing.T) {
	require.Zero(t, testing.AllocsPerRun(100, func() {
		for _, s := range []string{"10.0.0.1", "10.0.0.0/255.0.0.0", "2001:db8::/32-2001:db8:ff::/48"} {
			if r, err := mp1.ParseAddressRange(s); err != nil || !r.Contains(r.From) {
				t.Error(s, err)
			}
		}
		if _, err := mp1.ParsePortRange("8000-8100"); err != nil {
			t.Error(err)
		}
		if _, err := mp1.ParseProtocol("udp"); err != nil {
			t.Error(err)
		}
	}))
}
