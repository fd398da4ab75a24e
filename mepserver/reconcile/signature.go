package reconcile

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/openmep/mep/api/auth"
)

// The headers of a signed call. TimestampHeader is the time of signing in whole seconds since the Unix epoch. SignatureHeader is
// "sha256=" followed by the HMAC-SHA256, in hexadecimal and keyed with the secret, of the timestamp as it appears in the header,
// a full stop, and the body, which is empty for a GET.
const (
	TimestampHeader = "X-Mep-Timestamp"
	SignatureHeader = "X-Mep-Signature"
)

const signaturePrefix = "sha256="

// sign sets the headers of a signed call.
func sign(h http.Header, secret auth.Secret, body []byte, at time.Time) {
	timestamp := strconv.FormatInt(at.Unix(), 10)
	h.Set(TimestampHeader, timestamp)
	h.Set(SignatureHeader, signaturePrefix+hex.EncodeToString(mac(secret, timestamp, body)))
}

func mac(secret auth.Secret, timestamp string, body []byte) []byte {
	m := hmac.New(sha256.New, []byte(secret))
	m.Write([]byte(timestamp))
	m.Write([]byte{'.'})
	m.Write(body)
	return m.Sum(nil)
}

// VerifyWebhook is for receivers. It returns nil if a call with these headers and this body, exactly as received, comes from a
// holder of the secret and was signed no further than tolerance from now. The signature covers neither method nor path, and does
// not prevent anyone who can read a call from replaying it within the tolerance: that is what TLS is for.
func VerifyWebhook(secret auth.Secret, header http.Header, body []byte, now time.Time, tolerance time.Duration) error {
	if secret == "" {
		return errors.New("there is no secret to verify with")
	}
	timestamp := header.Get(TimestampHeader)
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil {
		return errors.New("the header " + TimestampHeader + " is not a time in seconds")
	}
	text, ok := strings.CutPrefix(header.Get(SignatureHeader), signaturePrefix)
	given, err := hex.DecodeString(text)
	if !ok || err != nil || len(given) != sha256.Size {
		return errors.New("the header " + SignatureHeader + " is not " + signaturePrefix + " and 64 hexadecimal digits")
	}
	if !hmac.Equal(given, mac(secret, timestamp, body)) {
		return errors.New("the signature is not one of this secret, time and body")
	}
	// Compare in seconds: a difference in nanoseconds may not fit into a time.Duration.
	if least, most := now.Add(-tolerance).Unix(), now.Add(tolerance).Unix(); seconds < least || seconds > most {
		return errors.New("the call was signed too long ago, or in the future")
	}
	return nil
}
