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

// traffic is what an app does in the background, unseen: it calls the platform until it is stopped. A request that fails ends it.
type traffic struct {
	app       *app
	client    *http.Client
	transport http.RoundTripper
	requests  atomic.Int64

	stopping func() // may be called several times
	stopped  chan struct{}
	ended    chan struct{}
	fault    error // once it has ended

	mu   sync.Mutex
	kids []string // the keys of the tokens used, in their order
}

// The rhythm of the calls, and for how many of them newTokens keeps a token.
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

// RoundTrip counts the request, and makes an error of an answer that says no before the client may try again.
func (t *traffic) RoundTrip(r *http.Request) (*http.Response, error) {
	t.requests.Add(1)
	resp, err := t.transport.RoundTrip(r)
	if err == nil && resp.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("%s %s was answered %s", r.Method, r.URL.Path, resp.Status), resp.Body.Close())
	}
	return resp, err
}

// start begins to call with tokens of the source.
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

// sameToken is the token the app has.
func (t *traffic) sameToken(ctx context.Context) (string, error) { return t.app.tokens.Token(ctx) }

// newTokens makes a source that replaces its token all the time.
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

// used notes a token.
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

// signedWith is the keys of the tokens used so far, in their order.
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
