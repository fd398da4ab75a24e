package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/openmep/mep/api/auth"
	"github.com/openmep/mep/api/signing"
)

// window is a transport that shows the requests of who and their responses.
type window struct {
	*screen
	who       string
	transport http.RoundTripper
}

// watched returns a copy of a client that shows its exchanges on the screen.
func (s *screen) watched(who string, h *http.Client) *http.Client {
	shown := *h
	shown.Transport = window{s, who, h.Transport}
	return &shown
}

// RoundTrip locks the screen from request to response, so that a notification that overtakes the response is shown after it.
func (w window) RoundTrip(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fmt.Fprintf(w.out, "\n   %s\n", w.paint(blue, w.who+" -> "+r.Method+" "+w.short(r.URL.RequestURI())))
	w.headers(r.Header, "Authorization", "X-Api-Key", "X-Sdk-Date", "If-Match", "X-Appinstanceid", "X-Consumer-Scopes")
	if r.GetBody != nil {
		body, _ := r.GetBody()
		sent, _ := io.ReadAll(body)
		fmt.Fprint(w.out, w.body(r.Header, sent))
	}
	resp, err := w.transport.RoundTrip(r)
	if err != nil {
		fmt.Fprintf(w.out, "   %s\n", w.paint(red, err.Error()))
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	resp.Body = io.NopCloser(bytes.NewReader(body))
	colour := green
	if resp.StatusCode >= 400 {
		colour = red
	}
	fmt.Fprintf(w.out, "   %s\n", w.paint(colour, resp.Status))
	w.headers(resp.Header, "WWW-Authenticate", "ETag", "Location", "Retry-After")
	fmt.Fprint(w.out, w.body(resp.Header, body))
	return resp, err
}

func (s *screen) headers(h http.Header, names ...string) {
	for _, name := range names {
		value := h.Get(name)
		switch {
		case name == "Authorization":
			value = s.unproven(value)
		case name == "X-Api-Key" && value != "":
			value = s.hide(value)
		}
		if value != "" {
			fmt.Fprintf(s.out, "%s%s: %s\n", indent, name, s.short(value))
		}
	}
}

// unproven returns an Authorization header without credentials, and "" for a bearer token, which almost every request has.
func (s *screen) unproven(authorization string) string {
	switch scheme, rest, _ := strings.Cut(authorization, " "); scheme {
	case "", auth.TokenTypeBearer:
		return ""
	case signing.Algorithm:
		claim, proof, _ := strings.Cut(rest, "Signature=")
		return scheme + " " + claim + "Signature=" + s.hide(proof)
	default:
		return scheme + " " + s.hide(rest)
	}
}

// body formats JSON, and OAuth 2.0 forms, which hold no secret when the client authenticates in a header.
func (s *screen) body(h http.Header, body []byte) string {
	if h.Get("Content-Type") == "application/x-www-form-urlencoded" {
		return indent + string(body) + "\n"
	}
	return s.pretty(body)
}

// notified shows a notification received by who.
func (s *screen) notified(who string, notification any) {
	body, _ := json.Marshal(notification)
	s.received(who, "notification", body)
}

// received shows a message of the platform to who.
func (s *screen) received(who, what string, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.out, "\n   %s\n%s", s.paint(yellow, who+" <- "+what), s.pretty(body))
}
