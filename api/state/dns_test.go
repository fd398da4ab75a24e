package state_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/state"
)

func TestKeysOfDNSRecords(t *testing.T) {
	for _, x := range []struct{ name, rrtype, view, key string }{
		{"www.example.", "A", "", "www.example./A/"},
		{"*.example.", "AAAA", "ue.1", "*.example./AAAA/ue.1"},
		{"0/26.2.0.192.in-addr.arpa.", "PTR", "", "0%2F26.2.0.192.in-addr.arpa./PTR/"},
		{"%2F.", "A", "", "%252F./A/"},
	} {
		key := state.DNSRecordKey(x.name, x.rrtype, x.view)
		require.Equal(t, state.PrefixDNSRecords+x.key, key)
		name, rrtype, view, err := state.SplitDNSRecordKey(key)
		require.NoError(t, err)
		require.Equal(t, []string{x.name, x.rrtype, x.view}, []string{name, rrtype, view})
	}
	for _, rest := range []string{"", "a.", "a./A", "/A/", "a.//", "a./A/b/c"} {
		_, _, _, err := state.SplitDNSRecordKey(state.PrefixDNSRecords + rest)
		require.ErrorContains(t, err, "is not of the form", rest)
	}
	_, _, _, err := state.SplitDNSRecordKey(state.PrefixApps + "a./A/")
	require.Error(t, err)
}
