package credential

import (
	"crypto/rand"

	"github.com/openmep/mep/api/signing"
)

// Generate returns a new access key and its secret key.
func Generate() (accessKeyID, secretKey string) {
	return generate(signing.AccessKeyIDLength), generate(signing.SecretKeyLength)
}

// alphabet has only letters and digits, although access keys may contain other characters, so that a generated key needs
// no escaping.
const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// generate returns n random characters, each of almost 6 bits.
func generate(n int) string {
	out := make([]byte, 0, n)
	var draw [96]byte
	for {
		_, _ = rand.Read(draw[:]) // never fails
		for _, b := range draw {
			// Values above the largest multiple of the alphabet's length would make its first characters more likely.
			if int(b) >= 256-256%len(alphabet) {
				continue
			}
			out = append(out, alphabet[int(b)%len(alphabet)])
			if len(out) == n {
				return string(out)
			}
		}
	}
}
