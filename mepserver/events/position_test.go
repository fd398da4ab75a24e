package events

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPositions(t *testing.T) {
	for id, want := range map[string]position{
		"1":                              {1, whole},
		"1-0":                            {1, 0},
		"42-17":                          {42, 17},
		"9223372036854775807-2147483646": {9223372036854775807, whole - 1},
	} {
		got, err := parsePosition(id)
		require.NoError(t, err, id)
		require.Equal(t, want, got)
		require.Equal(t, id, got.String())
	}
	ordered := []position{{1, 0}, {1, 1}, {1, whole}, {2, 0}, {2, whole}, {10, 0}}
	for i, p := range ordered {
		for j, q := range ordered {
			require.Equal(t, i < j, p.before(q), "%s before %s", p, q)
		}
	}
}

// FuzzParsePosition checks that every accepted id has the one valid spelling.
func FuzzParsePosition(f *testing.F) {
	for _, s := range []string{"", "1", "1-0", "0-0", "-1-0", "1-2-3", " 1-0", "1-0\n", "١-٠", "1-2147483647", "0x1-0", "1_0-0", "+1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, id string) {
		p, err := parsePosition(id)
		if err != nil {
			require.Zero(t, p)
			return
		}
		require.Equal(t, id, p.String())
		require.Positive(t, p.revision)
		require.GreaterOrEqual(t, p.index, 0)
		require.LessOrEqual(t, p.index, whole)
	})
}
