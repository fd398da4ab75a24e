package protect

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
)

// Secret is the key of server cookies. It hides itself when formatted.
type Secret [16]byte

// String implements fmt.Stringer, and hides the secret.
func (Secret) String() string { return "[secret]" }

// GoString implements fmt.GoStringer, and hides the secret.
func (Secret) GoString() string { return "[secret]" }

// Format implements fmt.Formatter, and hides the secret for every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalText implements encoding.TextMarshaler, and hides the secret.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// RandomSecret returns a new random secret.
func RandomSecret() Secret {
	var s Secret
	_, _ = rand.Read(s[:]) // never fails
	return s
}

// maxSecretFile is the maximum size of a file of secrets in octets; it needs 66.
const maxSecretFile = 4096

// LoadSecret reads the secret from a file: 32 hexadecimal digits. An optional second line holds the previous secret, whose
// cookies clients may still present while they learn new ones. Blank lines and lines that begin with # are ignored.
func LoadSecret(path string) (secret Secret, previous []Secret, err error) {
	f, err := os.Open(path)
	if err != nil {
		return secret, nil, fmt.Errorf("secret of cookies: %w", err)
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxSecretFile+1))
	if err == nil {
		secret, previous, err = parseSecrets(data)
	}
	if err != nil {
		return Secret{}, nil, fmt.Errorf("secret of cookies in %s: %w", path, err)
	}
	return secret, previous, nil
}

var errSecrets = errors.New("it has to be one line of 32 hexadecimal digits, and a second one for the previous secret if there is any")

// parseSecrets parses the contents of a file of secrets. Its errors reveal none of them.
func parseSecrets(data []byte) (secret Secret, previous []Secret, err error) {
	if len(data) > maxSecretFile {
		return secret, nil, errSecrets
	}
	var all []Secret
	for line := range bytes.Lines(data) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		var s Secret
		if len(line) != hex.EncodedLen(len(s)) || len(all) == 2 {
			return secret, nil, errSecrets
		}
		if _, err := hex.Decode(s[:], line); err != nil {
			return secret, nil, errSecrets
		}
		all = append(all, s)
	}
	if len(all) == 0 {
		return secret, nil, errSecrets
	}
	return all[0], all[1:], nil
}
