package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openmep/mep/api/client"
)

// traffic calls the platform on behalf of an app in the background, without showing it, until it is stopped or a request fails.
type traffic struct {
	app       *app
	client    *http.Client
	transport http.RoundTripper
	requests  atomic.Int64

	stopping func() // may be called several times
	stopped  chan struct{}
	ended    chan struct{}
	fault    error // valid after ended is closed

	mu   sync.Mutex
	kids []string // the key ids of the tokens used, in order
}

// The interval between calls, and the number of calls for which newTokens keeps a token.
const (
	rhythm   = 10 * time.Millisecond
	perToken = 30
)

func newTraffic(a *app) *traffic {
	t := &traffic{app: a, client: a.client(), stopped: make(chan struct{}), ended: make(chan struct{})}
	t.transport, t.client.Transport = t.client.Transport, t
	t.stopping = sync.OnceFunc(func() { close(t.stopped) })
	return t
}

// RoundTrip counts the request and turns an error response into an error before the client can retry.
func (t *traffic) RoundTrip(r *http.Request) (*http.Response, error) {
	t.requests.Add(1)
	resp, err := t.transport.RoundTrip(r)
	if err == nil && resp.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("%s %s was answered %s", r.Method, r.URL.Path, resp.Status), resp.Body.Close())
	}
	return resp, err
}

// start starts calling with tokens of the source.
func (t *traffic) start(ctx context.Context, tokens client.TokenSource) {
	c := t.app.calling(t.client, tokens)
	go func() {
		defer close(t.ended)
		t.fault = t.call(ctx, c)
	}()
}

// stop ends the calls and waits for the last one.
func (t *traffic) stop() {
	t.stopping()
	<-t.ended
}

func (t *traffic) call(ctx context.Context, c *client.Client) error {
	for {
		list, err := c.Discover(ctx, client.Query{Names: []string{location}})
		if err != nil {
			return fmt.Errorf("the %s in the background: %w", t.app.name, err)
		}
		if len(list) != 1 {
			return fmt.Errorf("the %s in the background found %d services, want 1", t.app.name, len(list))
		}
		select {
		case <-t.stopped:
			return nil
		case <-time.After(rhythm):
		}
	}
}

// sameToken returns the app's current token.
func (t *traffic) sameToken(ctx context.Context) (string, error) { return t.app.tokens.Token(ctx) }

// newTokens returns a source that keeps replacing its token.
func (t *traffic) newTokens() client.TokenSource {
	source := t.app.source(t.client)
	calls, present := 0, ""
	return func(ctx context.Context) (string, error) {
		if calls%perToken == 0 {
			source.Invalidate(present)
		}
		calls++
		token, err := source.Token(ctx)
		if err != nil || token == present {
			return token, err
		}
		present = token
		return token, t.used(token)
	}
}

// used records the key of a token.
func (t *traffic) used(token string) error {
	c, err := read(token)
	if err != nil {
		return err
	}
	t.app.screen.secret(token)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kids = append(t.kids, c.KeyID)
	return nil
}

// signedWith returns the key ids of the tokens used so far, in order.
func (t *traffic) signedWith() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.kids)
}

// waitFor waits until a token is signed with the key.
func (t *traffic) waitFor(ctx context.Context, kid string) {
	const lookAgain = 20 * time.Millisecond
	for end := time.Now().Add(patience); !slices.Contains(t.signedWith(), kid); pause(ctx, lookAgain) {
		select {
		case <-t.ended:
			must(t.fault)
		default:
		}
		expect(time.Now().Before(end), "after %s no token of the %s is signed with %s", patience, t.app.name, kid)
	}
}
