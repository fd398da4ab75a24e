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

// Message is the part of a request that a signature covers, as sent on the wire.
type Message struct {
	// Method is the method of the request.
	Method string
	// Host is the Host header, or the :authority of HTTP/2, as the client sent it; proxies must not change it.
	Host string
	// Path is the escaped path of the request line, without the query.
	Path string
	// RawQuery is the query of the request line, without the question mark.
	RawQuery string
	// Header holds the other headers. The signed date is the value of X-Sdk-Date.
	Header http.Header
	// Body is the whole body; nil and empty are equivalent.
	Body []byte
}

// CanonicalRequest returns the text whose hash is signed: six parts separated by line feeds, which are the same for all spellings
// of the path, query and headers of a request. signedHeaders is as returned by ParseAuthorization.
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

// appendPath appends the segments of the path, decoded and then escaped as in a query, each preceded by a slash, and a final
// slash. Empty segments, "." and ".." are omitted.
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

// appendQuery appends the pairs of the query, re-escaped and sorted as whole strings. Pairs that cannot be decoded are omitted,
// as by url.URL.Query.
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

// appendHeaders appends a line for every signed header, in the order of compareLines.
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

// compareLines compares two names as the lines they start: "a-b:" sorts before "a:", because the hyphen sorts before the colon.
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
	if name == dateHeader { // CanonicalMIMEHeaderKey does not intern it
		return m.Header[DateHeader]
	}
	return m.Header[textproto.CanonicalMIMEHeaderKey(name)]
}

// appendValues appends the values of a header, trimmed of white space, sorted and separated by commas.
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
