// Package callback decides where the platform may send notifications, and sends them.
//
// A call-back reference comes from an app, so it is a way to make the platform call addresses of the app's choosing. The
// address is checked when the reference is given and again, after name resolution, for every connection.
package callback

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Policy says which targets are allowed. Fields may only change before first use; replace the whole Policy to change it
// later.
type Policy struct {
	// AllowLoopback admits 127.0.0.0/8 and ::1.
	AllowLoopback bool
	// AllowPrivate admits the private ranges of RFC 1918 and RFC 4193.
	AllowPrivate bool
	// Own lists the platform's own listeners, which are never called.
	Own []netip.AddrPort
}

// CheckURI returns why a call-back reference is refused, as the end of a sentence that starts with its name.
func (p *Policy) CheckURI(ref string) error {
	u, err := url.Parse(ref)
	switch {
	case err != nil:
		return errors.New("is not a URI")
	case u.Scheme != "http" && u.Scheme != "https":
		return errors.New("must be an absolute http or https URI")
	case u.Hostname() == "":
		return errors.New("must name a host")
	case u.User != nil:
		return errors.New("must not carry a user name or password")
	case u.Fragment != "":
		return errors.New("must not have a fragment")
	}
	port, err := portOf(u)
	if err != nil {
		return err
	}
	addr, err := netip.ParseAddr(u.Hostname())
	if err != nil {
		return nil // a name: its addresses are checked whenever it is called
	}
	return p.CheckAddr(netip.AddrPortFrom(addr, port))
}

func portOf(u *url.URL) (uint16, error) {
	s := u.Port()
	if s == "" {
		if u.Scheme == "https" {
			return 443, nil
		}
		return 80, nil
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, errors.New("must have a port of 1 to 65535")
	}
	return uint16(n), nil
}

// CheckAddr returns why an address is refused.
func (p *Policy) CheckAddr(ap netip.AddrPort) error {
	a := ap.Addr().Unmap().WithZone("")
	switch {
	case a.IsUnspecified():
		return errors.New("must not be an unspecified address")
	case a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return errors.New("must not be a multicast or broadcast address")
	case a.IsLinkLocalUnicast():
		return errors.New("must not be a link-local address")
	case a.IsLoopback() && !p.AllowLoopback:
		return errors.New("must not be a loopback address (callbacks.allowLoopback is off)")
	case a.IsPrivate() && !p.AllowPrivate:
		return errors.New("must not be a private address (callbacks.allowPrivate is off)")
	}
	for _, own := range p.Own {
		if own.Port() == ap.Port() && (own.Addr().Unmap() == a || own.Addr().IsUnspecified() && isOwnAddr(a)) {
			return errors.New("must not be one of the platform's own listeners")
		}
	}
	return nil
}

// interfaces caches the addresses of this machine for a short time: checks come with every connection.
var interfaces struct {
	sync.Mutex
	at    time.Time
	addrs map[netip.Addr]struct{}
}

// isOwnAddr reports whether a is an address of this machine.
func isOwnAddr(a netip.Addr) bool {
	if a.IsLoopback() {
		return true
	}
	interfaces.Lock()
	defer interfaces.Unlock()
	if time.Since(interfaces.at) > 10*time.Second {
		interfaces.addrs = make(map[netip.Addr]struct{})
		list, _ := net.InterfaceAddrs() // without a list only loopback counts as own
		for _, n := range list {
			if p, err := netip.ParsePrefix(n.String()); err == nil {
				interfaces.addrs[p.Addr().Unmap()] = struct{}{}
			}
		}
		interfaces.at = time.Now()
	}
	_, own := interfaces.addrs[a]
	return own
}

// Client posts notifications.
type Client struct {
	http *http.Client
}

// Timeout bounds one call, from the connection to the end of the answer.
const Timeout = 5 * time.Second

// answerLimit is how much of an answer's body is read before the connection is given up.
const answerLimit = 64 << 10

// NewClient makes a client that obeys policy, which is asked for every connection.
func NewClient(policy func() *Policy) *Client {
	dialer := &net.Dialer{
		Timeout: Timeout,
		Control: func(_, address string, _ syscall.RawConn) error {
			ap, err := netip.ParseAddrPort(address)
			if err != nil {
				return fmt.Errorf("call-back address %q: %w", address, err)
			}
			if err := policy().CheckAddr(ap); err != nil {
				return &RefusedError{Addr: address, Reason: err}
			}
			return nil
		},
	}
	return &Client{http: &http.Client{
		Timeout: Timeout,
		Transport: &http.Transport{
			DialContext:            dialer.DialContext,
			Proxy:                  nil, // a proxy would undo the check of the address
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

// RefusedError says that the resolved address of a target is not allowed.
type RefusedError struct {
	Addr   string
	Reason error
}

// Error implements error.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("the target resolves to %s, which %s", e.Addr, e.Reason)
}

// StatusError is an answer other than 2xx.
type StatusError struct {
	// Status is the HTTP status.
	Status int
}

// Error implements error.
func (e *StatusError) Error() string { return fmt.Sprintf("the subscriber answered %d", e.Status) }

// Post sends a JSON body with an id that stays the same when the same notification is sent again. It returns nil for any
// 2xx answer and a *StatusError for any other; redirects are not followed.
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
	// What follows the status does not matter, but a short body read to its end lets the connection be used again.
	_, _ = io.CopyN(io.Discard, resp.Body, answerLimit)
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return &StatusError{Status: resp.StatusCode}
	}
	return nil
}

// CloseIdle drops the connections that are not in use.
func (c *Client) CloseIdle() { c.http.CloseIdleConnections() }
