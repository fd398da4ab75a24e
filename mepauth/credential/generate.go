package credential

import (
	"crypto/rand"

	"github.com/openmep/mep/api/signing"
)

// Generate makes an access key and its secret key.
func Generate() (accessKeyID, secretKey string) {
	return generate(signing.AccessKeyIDLength), generate(signing.SecretKeyLength)
}

// alphabet leaves out what access keys may hold besides letters and digits, so that nobody has to escape a generated one.
const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// generate makes n random characters, each of almost 6 bits.
func generate(n int) string {
	out := make([]byte, 0, n)
	var draw [96]byte
	for {
		_, _ = rand.Read(draw[:]) // never fails
		for _, b := range draw {
			// What is over the largest multiple would make the first characters likelier.
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
