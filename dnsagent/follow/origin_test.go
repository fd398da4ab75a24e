package follow

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/state"
)

func BenchmarkMakeRules(b *testing.B) {
	set := state.DNSRules{Version: state.Current(), Generation: 1, Running: true}
	ttl := int64(60)
	for i := range 1000 {
		set.Rules = append(set.Rules, state.Rule[mp1.DNSRule]{Declared: mp1.DNSRule{
			DNSRuleID: fmt.Sprint("rule-", i), DomainName: fmt.Sprintf("host-%d.mec.example", i), IPAddressType: "IP_V4", IPAddress: "192.0.2.1",
			TTL: &ttl, State: mp1.RuleActive,
		}})
	}
	value, err := state.Encode(set)
	require.NoError(b, err)
	b.SetBytes(int64(len(value)))
	b.ReportAllocs()
	for b.Loop() {
		m, err := makeRules(&Config{TTL: 30}, "app", []byte(value))
		require.NoError(b, err)
		require.Len(b, m.records, 1000)
	}
}
