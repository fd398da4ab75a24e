package harness

import (
	"fmt"
	"testing"
	"time"
)

// Patience is how long Eventually waits. It is far longer than anything takes on an idle machine.
const Patience = 20 * time.Second

// Eventually polls until try returns nil, and ends the test when that takes longer than Patience. what describes the condition.
func Eventually(tb testing.TB, what string, try func() error) {
	tb.Helper()
	EventuallyWithin(tb, Patience, what, try)
}

// EventuallyWithin is like Eventually with a different patience.
func EventuallyWithin(tb testing.TB, patience time.Duration, what string, try func() error) {
	tb.Helper()
	if err := poll(patience, try); err != nil {
		tb.Fatalf("waited %s for: %s: %v", patience, what, err)
	}
}

func poll(patience time.Duration, try func() error) error {
	deadline := time.Now().Add(patience)
	pause := time.Millisecond
	for {
		err := try()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return err
		}
		time.Sleep(pause)
		pause = min(2*pause, 25*time.Millisecond)
	}
}

// Not returns an error unless ok, for use in functions passed to Eventually.
func Not(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return fmt.Errorf(format, args...)
}
