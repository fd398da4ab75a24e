// Package callback sends notifications to the call-back references of apps.
//
// A call-back reference comes from an app and could make the platform call any address. Package netguard therefore
// checks the address when the reference is given and again, after name resolution, for every connection.
package callback

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/openmep/mep/kit/netguard"
)

// Policy says which targets are allowed.
type Policy = netguard.Policy

// RefusedError reports that the resolved address of a target is not allowed.
type RefusedError = netguard.RefusedError

// Client posts notifications.
type Client struct {
	http *http.Client
}

// Timeout bounds one call, from connecting to the end of the response.
const Timeout = 5 * time.Second

// answerLimit is the number of bytes of a response body that are read before the connection is given up.
const answerLimit = 64 << 10

// NewClient returns a client that obeys policy, which is called for every connection.
func NewClient(policy func() *Policy) *Client {
	return &Client{http: &http.Client{
		Timeout: Timeout,
		Transport: &http.Transport{
			DialContext:            netguard.Dialer(policy, Timeout).DialContext,
			Proxy:                  nil, // a proxy would bypass the address check
			MaxIdleConns:           1024,
			MaxIdleConnsPerHost:    4,
			IdleConnTimeout:        60 * time.Second,
			TLSHandshakeTimeout:    Timeout,
			ResponseHeaderTimeout:  Timeout,
			MaxResponseHeaderBytes: 32 << 10,
			ForceAttemptHTTP2:      true,
			DisableCompression:     true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// StatusError reports a response with a status other than 2xx.
type StatusError struct {
	// Status is the HTTP status.
	Status int
}

// Error implements error.
func (e *StatusError) Error() string { return fmt.Sprintf("the subscriber answered %d", e.Status) }

// Post sends a JSON body under an id, which stays the same when a notification is sent again. It returns nil for any
// 2xx response and a *StatusError for any other; it does not follow redirects.
func (c *Client) Post(ctx context.Context, target, id string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, io.NopCloser(bytes.NewReader(body)))
	if err != nil {
		return err
	}
	req.ContentLength = int64(len(body))
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Notification-Id", id)
	req.Header.Set("User-Agent", "mep")
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	// The body does not matter, but reading a short one to its end lets the connection be reused.
	_, _ = io.CopyN(io.Discard, resp.Body, answerLimit)
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return &StatusError{Status: resp.StatusCode}
	}
	return nil
}

// CloseIdle closes idle connections.
func (c *Client) CloseIdle() { c.http.CloseIdleConnections() }
