// Package problem holds the error body every interface of the platform answers with: the
// ProblemDetails of RFC 9457 (MEC 009 clause 6.15).
package problem

import "strings"

// ContentType is the media type of a problem document.
const ContentType = "application/problem+json"

// Details describes why a request failed. Status equals the HTTP status of the response that carries it.
type Details struct {
	// Type is a URI that identifies the kind of problem; absent means "about:blank".
	Type string `json:"type,omitempty"`
	// Title is a short text that is the same for every problem of this kind.
	Title string `json:"title"`
	// Status is the HTTP status code, 400 to 599.
	Status int `json:"status"`
	// Detail says what was wrong with this very request and what to do about it.
	Detail string `json:"detail"`
	// Instance names the occurrence: the id of the request, as in the server's log.
	Instance string `json:"instance,omitempty"`
	// InvalidParams lists every member, parameter or header that was refused.
	InvalidParams []InvalidParam `json:"invalidParams,omitempty"`
}

// Error makes Details usable as an error by clients.
func (d *Details) Error() string {
	if d.Detail == "" {
		return d.Title
	}
	return d.Title + ": " + d.Detail
}

// InvalidParam names one offending part of a request.
type InvalidParam struct {
	// Name is the path of a body member ("transportInfo.endpoint.uris[0]"), or the name of a query
	// parameter or header.
	Name string `json:"name"`
	// Reason says what is wrong with it, as the end of a sentence that starts with the name.
	Reason string `json:"reason"`
}

// InvalidParams collects the faults of one request so that all of them can be reported at once.
type InvalidParams []InvalidParam

// Add records that the named part is wrong for the given reason.
func (p *InvalidParams) Add(name, reason string) {
	*p = append(*p, InvalidParam{Name: name, Reason: reason})
}

// Error joins all faults into one sentence.
func (p InvalidParams) Error() string {
	var b strings.Builder
	for i, f := range p {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(f.Name)
		b.WriteByte(' ')
		b.WriteString(f.Reason)
	}
	return b.String()
}

// Err returns p as an error, or nil when nothing was recorded.
func (p InvalidParams) Err() error {
	if len(p) == 0 {
		return nil
	}
	return p
}
