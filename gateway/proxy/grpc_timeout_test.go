package proxy

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTimeoutsOfGRPC(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"100m": 100 * time.Millisecond, "1S": time.Second, "2M": 2 * time.Minute, "3H": 3 * time.Hour, "99999999u": 99999999 * time.Microsecond, "5n": 5,
		"": -1, "S": -1, "10": -1, "-1S": -1, "1.5S": -1, "100000000S": -1, "1x": -1,
	} {
		d, ok := grpcTimeout(text)
		require.Equal(t, want >= 0, ok, text)
		if ok {
			require.Equal(t, want, d, text)
		}
	}
}
