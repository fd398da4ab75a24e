package mp1_test

import (
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/mp1"
)

// requireReason checks that an error can be shown to the sender of the value.
func requireReason(t *testing.T, err error) {
	t.Helper()
	reason := err.Error()
	require.True(t, strings.HasPrefix(reason, "must be "), reason)
	require.True(t, utf8.ValidString(reason), reason)
	require.Less(t, len(reason), 1024, reason)
	require.NotContains(t, reason, "\n")
}

// FuzzParseAddressRange checks that no value makes the parser panic, and that an accepted range is valid and survives
// formatting and parsing.
func FuzzParseAddressRange(f *testing.F) {
	for _, s := range []string{
		"10.0.0.1", "10.0.0.0/8", "10.0.0.0/255.0.0.0", "10.0.0.1-10.0.0.9", "2001:db8::/32-2001:db8:ff::/48", "::ffff:10.0.0.1", "fe80::1%e",
		"::/80", "::5-::/80", "0.0.0.0/0", "1::-ffff::/16",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := mp1.ParseAddressRange(s)
		if err != nil {
			requireReason(t, err)
			return
		}
		require.Equal(t, r.From.BitLen(), r.To.BitLen())
		require.False(t, r.To.Less(r.From))
		require.True(t, r.Contains(r.From) && r.Contains(r.To))
		require.False(t, r.Contains(r.From.Prev()) || r.Contains(r.To.Next()))
		again, err := mp1.ParseAddressRange(r.String())
		require.NoError(t, err)
		require.Equal(t, r, again)
		if p, ok := r.Prefix(); ok {
			require.Equal(t, p.Masked(), p)
			require.True(t, p.Contains(r.From) && p.Contains(r.To))
			require.False(t, p.Contains(r.From.Prev()) || p.Contains(r.To.Next()))
		}
		if a, err := mp1.ParseAddress(s); err == nil {
			require.True(t, r.From == a && r.To == a)
		}
	})
}

// FuzzParsePortRange checks that no value makes the parser panic, and that an accepted range is valid and survives formatting
// and parsing.
func FuzzParsePortRange(f *testing.F) {
	for _, s := range []string{"80", "8000-8100", "0", "65536", "1-65535", "80-", "-", "080"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := mp1.ParsePortRange(s)
		if err != nil {
			requireReason(t, err)
			return
		}
		require.Positive(t, r.From)
		require.LessOrEqual(t, r.From, r.To)
		require.True(t, r.Contains(r.From) && r.Contains(r.To))
		again, err := mp1.ParsePortRange(r.String())
		require.NoError(t, err)
		require.Equal(t, r, again)
	})
}

// FuzzParseProtocol checks that no value makes the parser panic, that case is ignored, and that a number is parsed as itself.
func FuzzParseProtocol(f *testing.F) {
	for _, s := range []string{"tcp", "IPv6-ICMP", "0", "255", "256", "06", "any"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := mp1.ParseProtocol(s)
		if err != nil {
			requireReason(t, err)
			return
		}
		again, err := mp1.ParseProtocol(strconv.Itoa(int(n)))
		require.NoError(t, err)
		require.Equal(t, n, again)
		again, err = mp1.ParseProtocol(strings.ToUpper(s))
		require.NoError(t, err)
		require.Equal(t, n, again)
	})
}

// FuzzParseMAC checks that no value makes the parser panic, and that an accepted address has 48 bits and survives formatting
// and parsing.
func FuzzParseMAC(f *testing.F) {
	for _, s := range []string{"00:00:5e:00:53:01", "00-00-5E-00-53-01", "0000.5e00.5301", "02:00:5e:10:00:00:00:01"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		mac, err := mp1.ParseMAC(s)
		if err != nil {
			requireReason(t, err)
			return
		}
		require.Len(t, mac, 6)
		require.Equal(t, strings.ToLower(strings.ReplaceAll(s, "-", ":")), mac.String())
	})
}
