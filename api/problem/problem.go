// Package problem defines the error body of every interface of the platform: the ProblemDetails of RFC
// 9457 (MEC 009 clause 6.15).
package problem

import "strings"

// ContentType is the media type of a problem document.
const ContentType = "application/problem+json"

// Details describes why a request failed. Status equals the HTTP status of the response that carries it.
type Details struct {
	// Type is a URI that identifies the kind of problem; absent means "about:blank".
	Type string `json:"type,omitempty"`
	// Title is a short summary, the same for every problem of this type.
	Title string `json:"title"`
	// Status is the HTTP status code, 400 to 599.
	Status int `json:"status"`
	// Detail says what was wrong with this particular request and how to fix it.
	Detail string `json:"detail"`
	// Instance identifies the occurrence: the request id, as in the server's log.
	Instance string `json:"instance,omitempty"`
	// InvalidParams lists every refused member, parameter and header.
	InvalidParams []InvalidParam `json:"invalidParams,omitempty"`
}

// Error returns the title and the detail.
func (d *Details) Error() string {
	if d.Detail == "" {
		return d.Title
	}
	return d.Title + ": " + d.Detail
}

// InvalidParam describes one invalid part of a request.
type InvalidParam struct {
	// Name is the path of a body member ("transportInfo.endpoint.uris[0]"), or the name of a query
	// parameter or header.
	Name string `json:"name"`
	// Reason says what is wrong with it; it completes a sentence that starts with the name.
	Reason string `json:"reason"`
}

// InvalidParams collects the faults of a request so that all of them can be reported at once.
type InvalidParams []InvalidParam

// Add records that the named part is wrong for the given reason.
func (p *InvalidParams) Add(name, reason string) {
	*p = append(*p, InvalidParam{Name: name, Reason: reason})
}

// Error returns all faults as one sentence.
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

// Err returns p as an error, or nil when p is empty.
func (p InvalidParams) Err() error {
	if len(p) == 0 {
		return nil
	}
	return p
}
