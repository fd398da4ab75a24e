package rules

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/state"
)

func TestOnlyTheVeryRecordIsTaken(t *testing.T) {
	var o own[mp1.DNSRule]
	rec := state.DNSRules{Generation: 7}
	o.keep("k", "value", rec)
	_, ok := o.take("k", []byte("other"))
	require.False(t, ok)
	_, ok = o.take("other", []byte("value"))
	require.False(t, ok)
	got, ok := o.take("k", []byte("value"))
	require.True(t, ok)
	require.Equal(t, rec, got)
	_, ok = o.take("k", []byte("value"))
	require.False(t, ok, "it comes back once")
}

func TestWhatIsNeverWrittenIsForgotten(t *testing.T) {
	var o own[mp1.DNSRule]
	value := strings.Repeat("x", maxOwnValue)
	for i := range 1000 {
		o.keep(fmt.Sprint(i), value, state.DNSRules{})
		o.keep("same", value, state.DNSRules{})
		o.keep(fmt.Sprint("small", i), "v", state.DNSRules{})
		size := 0
		for _, w := range o.records {
			size += len(w.value)
		}
		require.LessOrEqual(t, size, maxOwnBytes)
		require.LessOrEqual(t, len(o.records), maxOwn)
	}
	o.keep("large", value+"x", state.DNSRules{})
	_, ok := o.take("large", []byte(value+"x"))
	require.False(t, ok)
}
