package auth

import (
	"fmt"
	"io"
	"log/slog"
)

// Secret is a text that must not be seen: it shows as "[redacted]" in fmt and slog, whatever the verb (but %p, which fmt keeps to itself). In JSON it is written as
// it is, so a value that holds one is not to be logged as JSON.
type Secret string

const redacted = "[redacted]"

// String returns "[redacted]", or "" when there is no secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// Format writes what String returns, for every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue is what String returns.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
