package signing

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

const (
	maxSignedHeaders     = 32
	maxSignedHeadersText = 512
	signatureLength      = 64
	nameMarks            = "!#$%&'*+-.^_`|~" // of RFC 9110 5.6.2
)

// Authorization is the parsed value of an Authorization header with a signature.
type Authorization struct {
	// AccessKeyID identifies the signer: 20 characters.
	AccessKeyID string
	// SignedHeaders lists the names of the headers the signature covers, in lower case and sorted. They include host and
	// x-sdk-date.
	SignedHeaders []string
	// Signature is the signature as 64 hexadecimal digits in lower case, so that one signature has one spelling.
	Signature string
}

// String returns the value of the header.
func (a Authorization) String() string {
	return Algorithm + " Access=" + a.AccessKeyID + ", SignedHeaders=" + strings.Join(a.SignedHeaders, ";") + ", Signature=" + a.Signature
}

// ParseAuthorization parses the value of an Authorization header:
//
//	SDK-HMAC-SHA256 Access=<20 characters>, SignedHeaders=<names, sorted, with ";" between them>, Signature=<64 hexadecimal digits>
//
// with at most 32 names of at most 512 bytes in total. The error says what is wrong and what was expected, without quoting the
// value.
func ParseAuthorization(value string) (Authorization, error) {
	a, err := parse(value)
	if err != nil {
		return Authorization{}, fmt.Errorf("the Authorization header %w", err)
	}
	return a, nil
}

func parse(value string) (Authorization, error) {
	var a Authorization
	rest, ok := strings.CutPrefix(value, Algorithm+" ")
	if !ok {
		return a, fmt.Errorf("must start with %s and one space", Algorithm)
	}
	access, rest, ok := strings.Cut(rest, ", ")
	if a.AccessKeyID, ok = cutName(access, "Access=", ok); !ok || !ValidAccessKeyID(a.AccessKeyID) {
		return a, fmt.Errorf(`must have "Access=", an access key id of %d letters, digits and characters of "_+/=", and ", " after the algorithm`,
			AccessKeyIDLength)
	}
	headers, signature, ok := strings.Cut(rest, ", ")
	headers, ok = cutName(headers, "SignedHeaders=", ok)
	if !ok {
		return a, errors.New(`must have "SignedHeaders=", the names of the signed headers, and ", " after the access key id`)
	}
	var err error
	if a.SignedHeaders, err = parseSignedHeaders(headers); err != nil {
		return a, err
	}
	if a.Signature, ok = strings.CutPrefix(signature, "Signature="); !ok || !isSignature(a.Signature) {
		return a, fmt.Errorf(`must end with "Signature=" and %d hexadecimal digits in lower case`, signatureLength)
	}
	return a, nil
}

func cutName(s, name string, terminated bool) (string, bool) {
	s, ok := strings.CutPrefix(s, name)
	return s, ok && terminated
}

func parseSignedHeaders(text string) ([]string, error) {
	if len(text) > maxSignedHeadersText || strings.Count(text, ";") >= maxSignedHeaders {
		return nil, fmt.Errorf("has too long a list of signed headers: at most %d names and %d bytes are allowed",
			maxSignedHeaders, maxSignedHeadersText)
	}
	names := strings.Split(text, ";")
	for i, name := range names {
		switch {
		case name == "" || strings.ContainsFunc(name, func(r rune) bool { return !isLowerToken(r) }):
			return nil, errors.New(`must list the signed headers as names in lower case with ";" between them`)
		case i > 0 && names[i-1] >= name:
			return nil, errors.New("must list the signed headers sorted and each of them once")
		}
	}
	for _, name := range []string{hostHeader, dateHeader} {
		if _, found := slices.BinarySearch(names, name); !found {
			return nil, fmt.Errorf("must have %s among the signed headers", name)
		}
	}
	return names, nil
}

func isLowerToken(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || strings.ContainsRune(nameMarks, r)
}

func isSignature(s string) bool {
	return len(s) == signatureLength && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'f')
	})
}
