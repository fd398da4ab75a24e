package telemetry

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRoomForGarbage(t *testing.T) {
	for live, want := range map[uint64]int{0: 200, 1 << 20: 200, 32 << 20: 200, 48 << 20: 133, 64 << 20: 100, 1 << 30: 100} {
		require.Equal(t, want, percent(live), "%d bytes", live)
	}
}
