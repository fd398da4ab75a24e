package mp1_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/mp1"
)

// FuzzDomainName checks that no name makes the check panic, and that an accepted name can be queried in a DNS message (RFC 1035
// 3.1), in any case and with or without a trailing dot.
func FuzzDomainName(f *testing.F) {
	for _, s := range []string{"www.example.com", "*.example.com.", "_sip._udp.a", "*", ".", "a..b", "-a", "bücher.example", strings.Repeat("a.", 127)} {
		f.Add(s)
	}
	accepts := func(name string) bool {
		u := mp1.DNSRuleUpdate{DomainName: name, State: mp1.RuleActive}
		return name != "" && len(faultsOf(u.Check)) == 0
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !accepts(s) {
			return
		}
		size := 1
		bare := strings.TrimSuffix(s, ".")
		for i, label := range strings.Split(bare, ".") {
			require.NotEmpty(t, label)
			require.LessOrEqual(t, len(label), 63)
			require.True(t, !strings.Contains(label, "*") || i == 0 && label == "*")
			size += 1 + len(label)
		}
		require.LessOrEqual(t, size, 255)
		require.True(t, accepts(bare) && accepts(bare+"."))
		require.True(t, accepts(strings.ToUpper(s)))
		require.False(t, accepts(s+"."+s+" "))
	})
}

// FuzzTrafficRule checks that no rule makes the check panic or report an unbounded number of faults, and that the faults of a
// rule are the same after it was stored and read.
func FuzzTrafficRule(f *testing.F) {
	f.Add(goodTrafficRule)
	f.Add(`{"trafficFilter": [{"srcAddress": ["10.0.0.1/8"], "dstAddress": ["::/0"]}], "dstInterface": [{"tunnelInfo": {}}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		var r, again mp1.TrafficRule
		if json.Unmarshal([]byte(text), &r) != nil {
			return
		}
		faults := faultsOf(r.Check)
		require.Less(t, len(faults), 100)
		stored, err := json.Marshal(r)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(stored, &again))
		require.Equal(t, faults, faultsOf(again.Check))
	})
}
