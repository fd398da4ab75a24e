package reconcile

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func signed(body string, at time.Time) http.Header {
	h := make(http.Header)
	sign(h, secret, []byte(body), at)
	return h
}

func TestTheSignatureIsTheDocumentedOne(t *testing.T) {
	h := signed(`{"a":1}`, time.Unix(1700000000, 999))
	require.Equal(t, "1700000000", h.Get("X-Mep-Timestamp"))
	// printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac 'correct horse battery staple'
	require.Equal(t, "sha256=c0385f8b18e8d1ac37a3c0d93fa81ef49dc339ee11bf4170c61942141ce6cd98", h.Get("X-Mep-Signature"))
}

func TestSignaturesThatAreRefused(t *testing.T) {
	const body = `{"a":1}`
	replace := func(name, value string) func(http.Header) {
		return func(h http.Header) { h.Set(name, value) }
	}
	for _, c := range []struct {
		name   string
		change func(http.Header)
		body   string
		after  time.Duration
		err    string
	}{
		{"none is refused", func(http.Header) {}, body, 0, ""},
		{"not at the edge of the tolerance", func(http.Header) {}, body, time.Minute, ""},
		{"nor from a clock that is ahead", func(http.Header) {}, body, -time.Minute, ""},
		{"too old", func(http.Header) {}, body, 61 * time.Second, "too long ago"},
		{"from the future", func(http.Header) {}, body, -61 * time.Second, "in the future"},
		{"another body", func(http.Header) {}, `{"a":2}`, 0, "is not one of this secret"},
		{"another time", replace(TimestampHeader, "1700000001"), body, 0, "is not one of this secret"},
		{"the same time in another form", replace(TimestampHeader, "+1700000000"), body, 0, "is not one of this secret"},
		{"no time", func(h http.Header) { h.Del(TimestampHeader) }, body, 0, "not a time in seconds"},
		{"a time that is none", replace(TimestampHeader, "now"), body, 0, "not a time in seconds"},
		{"no signature", func(h http.Header) { h.Del(SignatureHeader) }, body, 0, "64 hexadecimal digits"},
		{"another algorithm", replace(SignatureHeader, "sha1="+strings.Repeat("0", 64)), body, 0, "64 hexadecimal digits"},
		{"a short one", replace(SignatureHeader, "sha256=00"), body, 0, "64 hexadecimal digits"},
		{"an empty one", replace(SignatureHeader, "sha256="), body, 0, "64 hexadecimal digits"},
		{"no digits", replace(SignatureHeader, "sha256="+strings.Repeat("g", 64)), body, 0, "64 hexadecimal digits"},
		{"a guess", replace(SignatureHeader, "sha256="+strings.Repeat("0", 64)), body, 0, "is not one of this secret"},
	} {
		t.Run(c.name, func(t *testing.T) {
			at := time.Unix(1700000000, 0)
			h := signed(body, at)
			c.change(h)
			err := VerifyWebhook(secret, h, []byte(c.body), at.Add(c.after), time.Minute)
			if c.err == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.err)
			require.NotContains(t, err.Error(), string(secret))
		})
	}
	require.ErrorContains(t, VerifyWebhook("", signed(body, noon), []byte(body), noon, time.Minute), "no secret")
}

func FuzzVerifyWebhook(f *testing.F) {
	good := signed("{}", noon)
	f.Add(good.Get(TimestampHeader), good.Get(SignatureHeader), []byte("{}"))
	f.Add("-9223372036854775808", "sha256=", []byte(nil))
	f.Fuzz(func(t *testing.T, timestamp, signature string, body []byte) {
		h := http.Header{TimestampHeader: {timestamp}, SignatureHeader: {signature}}
		if VerifyWebhook(secret, h, body, noon, time.Minute) == nil {
			require.Equal(t, good.Get(SignatureHeader), strings.ToLower(signature), "nobody else has the secret")
			require.Equal(t, "{}", string(body))
		}
	})
}
