package signing

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
)

// The headers that every signature covers.
const (
	hostHeader = "host"
	dateHeader = "x-sdk-date"
)

// Message is what a signature covers: a request as it stands on the wire.
type Message struct {
	// Method is the method of the request.
	Method string
	// Host is the Host header, or the :authority of HTTP/2, as the client sent it; proxies must leave it alone.
	Host string
	// Path is the path of the request line, escaped, without the query.
	Path string
	// RawQuery is the query of the request line, without the question mark.
	RawQuery string
	// Header has the other headers. The date that is signed is the value of X-Sdk-Date.
	Header http.Header
	// Body is the whole body; nil and empty are the same.
	Body []byte
}

// CanonicalRequest is the text whose hash is signed: six parts, separated by line feeds, that are the same for a request however
// its path, query and headers are written. signedHeaders is as ParseAuthorization returns it.
func (m *Message) CanonicalRequest(signedHeaders []string) string {
	return string(m.appendCanonical(nil, signedHeaders))
}

func (m *Message) appendCanonical(b []byte, signedHeaders []string) []byte {
	b = append(b, strings.ToUpper(m.Method)...)
	b = append(b, '\n')
	b = appendPath(b, m.Path)
	b = append(b, '\n')
	b = appendQuery(b, m.RawQuery)
	b = append(b, '\n')
	b = m.appendHeaders(b, signedHeaders)
	b = append(b, '\n')
	for i, name := range signedHeaders {
		if i > 0 {
			b = append(b, ';')
		}
		b = append(b, name...)
	}
	b = append(b, '\n')
	sum := sha256.Sum256(m.Body)
	return hex.AppendEncode(b, sum[:])
}

// appendPath writes the segments of the path, decoded and then escaped as in a query, each with a slash before it, and a slash at
// the end. Empty ones, "." and ".." are left out.
func appendPath(b []byte, escaped string) []byte {
	path, err := url.PathUnescape(escaped)
	if err != nil {
		path = escaped
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment != "" && segment != "." && segment != ".." {
			b = append(b, '/')
			b = append(b, url.QueryEscape(segment)...)
		}
	}
	return append(b, '/')
}

// appendQuery writes the pairs of the query, escaped afresh and sorted as whole strings. Pairs that cannot be decoded are left
// out, as url.URL.Query does.
func appendQuery(b []byte, raw string) []byte {
	if raw == "" {
		return b
	}
	values, _ := url.ParseQuery(raw)
	var pairs []string
	for name, of := range values {
		for _, value := range of {
			pairs = append(pairs, url.QueryEscape(name)+"="+url.QueryEscape(value))
		}
	}
	slices.Sort(pairs)
	return append(b, strings.Join(pairs, "&")...)
}

// appendHeaders writes a line for every signed header, in the order of the lines.
func (m *Message) appendHeaders(b []byte, signed []string) []byte {
	var space [maxSignedHeaders]string
	names := append(space[:0], signed...)
	slices.SortFunc(names, compareLines)
	for _, name := range names {
		b = append(b, name...)
		b = append(b, ':')
		if name == hostHeader {
			b = append(b, strings.TrimSpace(m.Host)...)
		} else {
			b = appendValues(b, m.values(name))
		}
		b = append(b, '\n')
	}
	return b
}

// compareLines compares two names as the lines they start: "a-b:" stands before "a:", as the hyphen does before the colon.
func compareLines(a, b string) int {
	n := min(len(a), len(b))
	if c := strings.Compare(a[:n], b[:n]); c != 0 || len(a) == len(b) {
		return c
	}
	if len(a) < len(b) {
		return int(':') - int(b[n])
	}
	return int(a[n]) - int(':')
}

func (m *Message) values(name string) []string {
	if name == dateHeader { // a name that CanonicalMIMEHeaderKey does not keep
		return m.Header[DateHeader]
	}
	return m.Header[textproto.CanonicalMIMEHeaderKey(name)]
}

// appendValues writes the values of a header without white space around them, sorted and separated by commas.
func appendValues(b []byte, values []string) []byte {
	if len(values) == 1 {
		return append(b, strings.TrimSpace(values[0])...)
	}
	trimmed := make([]string, len(values))
	for i, v := range values {
		trimmed[i] = strings.TrimSpace(v)
	}
	slices.Sort(trimmed)
	return append(b, strings.Join(trimmed, ",")...)
}
