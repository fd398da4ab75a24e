package telemetry_test

import (
	"bytes"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/kit/telemetry"
)

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func TestLinesArriveLateWarningsAtOnceAndNothingIsLost(t *testing.T) {
	var out buffer
	log, err := telemetry.NewLog(&out, "json", "info")
	require.NoError(t, err)
	log.Debug("not wanted")
	log.Info("one")
	require.Eventually(t, func() bool { return out.String() != "" }, 20*time.Second, time.Millisecond)
	log.Info("two")
	log.With("k", "v").WithGroup("g").Warn("three", "a", 1)
	require.Contains(t, out.String(), `"three"`)
	require.Contains(t, out.String(), `"two"`)
	log.Info("four")
	log.Close()
	log.Close()
	require.Contains(t, out.String(), `"four"`)
	log.Info("five")
	require.Contains(t, out.String(), `"five"`, "after Close lines are written at once")
	require.NotContains(t, out.String(), "not wanted")
}

func TestLevelAndFormatAreChecked(t *testing.T) {
	_, err := telemetry.NewLog(&buffer{}, "xml", "info")
	require.ErrorContains(t, err, "json, text")
	_, err = telemetry.NewLog(&buffer{}, "json", "loud")
	require.ErrorContains(t, err, "debug, info, warn, error")
	log, err := telemetry.NewLog(&buffer{}, "text", "info")
	require.NoError(t, err)
	defer log.Close()
	require.NoError(t, log.SetLevel("debug"))
	require.Error(t, log.SetLevel("x"))
}
