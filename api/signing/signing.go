// Package signing creates and verifies the request signature SDK-HMAC-SHA256, with which an app proves to a MEC platform that it
// holds an access key and its secret key. The secret key itself is never sent.
//
// A client calls [Sign]. A server parses the Authorization header with [ParseAuthorization], computes the expected signature with
// [Message.Signature], and compares the two in constant time. The signature covers the method, the path, the query, the signed
// headers and the body. It is up to the server to check that the date is acceptable and that the signature has not been used
// before.
package signing

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"time"
)

const (
	// Algorithm is the name of the signature algorithm, in the Authorization header and in the string to sign.
	Algorithm = "SDK-HMAC-SHA256"
	// DateHeader is the header with the time of signing. It is always signed.
	DateHeader = "X-Sdk-Date"
	// DateLayout is the layout of the time of signing, for time.Parse: UTC, to the second.
	DateLayout = "20060102T150405Z"
	// AccessKeyIDLength is the length of an access key id in bytes.
	AccessKeyIDLength = 20
	// SecretKeyLength is the length of a secret key in bytes.
	SecretKeyLength = 64
)

// ValidAccessKeyID reports whether s has the form of an access key id: 20 letters, digits and characters of "_+/=".
func ValidAccessKeyID(s string) bool { return len(s) == AccessKeyIDLength && isKeyText(s) }

// ValidSecretKey reports whether s has the form of a secret key: 64 letters, digits and characters of "_+/=".
func ValidSecretKey(s string) bool { return len(s) == SecretKeyLength && isKeyText(s) }

func isKeyText(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case c == '_', c == '+', c == '/', c == '=':
		default:
			return false
		}
	}
	return true
}

// Sign signs r, whose body is body, with the access key at the given time. It sets the headers X-Sdk-Date and Authorization, and
// Content-Type to application/json when r has none. Of the headers, the signature covers the host, X-Sdk-Date and Content-Type.
// What is signed must not change afterwards.
//
// The time has a resolution of one second. A server that accepts each signature only once refuses the second of two equal
// requests that were signed within the same second.
func Sign(r *http.Request, accessKeyID, secretKey string, body []byte, at time.Time) {
	if r.Header == nil {
		r.Header = make(http.Header)
	}
	if r.Header.Get("Content-Type") == "" {
		r.Header.Set("Content-Type", "application/json")
	}
	r.Header.Set(DateHeader, at.UTC().Format(DateLayout))
	m := Message{
		Method: r.Method, Host: r.Host, Path: r.URL.EscapedPath(), RawQuery: r.URL.RawQuery, Header: r.Header, Body: body,
	}
	if m.Method == "" {
		m.Method = http.MethodGet
	}
	if m.Host == "" {
		m.Host = r.URL.Host
	}
	a := Authorization{AccessKeyID: accessKeyID, SignedHeaders: []string{"content-type", hostHeader, dateHeader}}
	a.Signature = hex.EncodeToString(m.Signature([]byte(secretKey), a.SignedHeaders))
	r.Header.Set("Authorization", a.String())
}

// Signature returns the signature of the message: the 32 bytes of an HMAC-SHA256 whose key is the text of the secret key.
// signedHeaders is as returned by ParseAuthorization: names in lower case, sorted.
func (m *Message) Signature(secretKey []byte, signedHeaders []string) []byte {
	var space [512]byte // enough for a token request; stays off the heap
	canonical := sha256.Sum256(m.appendCanonical(space[:0], signedHeaders))
	toSign := make([]byte, 0, 128)
	toSign = append(toSign, Algorithm...)
	toSign = append(toSign, '\n')
	toSign = append(toSign, m.Header.Get(DateHeader)...)
	toSign = append(toSign, '\n')
	toSign = hex.AppendEncode(toSign, canonical[:])
	mac := hmac.New(sha256.New, secretKey)
	mac.Write(toSign)
	return mac.Sum(nil)
}
