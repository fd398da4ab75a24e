package auth

import (
	"fmt"
	"io"
	"log/slog"
)

// Secret is a string that must not be shown: fmt and slog print it as "[redacted]" for every verb except %p, which fmt handles itself. It
// marshals to JSON unchanged, so values that hold one must not be logged as JSON.
type Secret string

const redacted = "[redacted]"

// String returns "[redacted]", or "" when the secret is empty.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// Format writes the result of String for every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue returns the result of String.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
