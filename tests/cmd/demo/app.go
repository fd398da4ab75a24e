package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/openmep/mep/api/auth"
	"github.com/openmep/mep/api/client"
	"github.com/openmep/mep/api/mp1"
)

// app is a MEC app: it calls the platform and has an HTTP server that the platform calls.
type app struct {
	*client.App
	screen   *screen
	name     string
	creds    *auth.Credentials
	signed   bool // requests tokens with a signature
	tokens   *auth.Source
	platform *client.Client
	support  caller // application support
	url      string // of the app's server
	heard    chan mp1.ServiceReference
	notices  chan notice
}

// newApp creates an app with the credentials and starts its server.
func newApp(s *screen, name string, creds *auth.Credentials, signed bool) *app {
	a := &app{
		screen: s, name: name, creds: creds, signed: signed,
		heard: make(chan mp1.ServiceReference, 100), notices: make(chan notice, 100),
	}
	a.tokens = a.source(s.watched(name, a.client()))
	token := func(ctx context.Context) (string, error) { return a.tokens.Token(ctx) }
	a.platform = a.calling(s.watched(name, a.client()), token)
	a.support = caller{
		url:    creds.URLs["mp1"] + "/mec_app_support/v2/applications/" + creds.AppInstanceID,
		client: s.watched(name, a.client()), token: token,
	}
	a.App = a.platform.App(creds.AppInstanceID)
	a.url = a.serve()
	return a
}

// client returns an HTTP client that trusts only the platform's CA.
func (a *app) client() *http.Client {
	h, err := a.creds.HTTPClient()
	must(err)
	h.Timeout = 5 * time.Second
	return h
}

// source returns a source of tokens for the app's current credentials.
func (a *app) source(h *http.Client) *auth.Source {
	if !a.signed {
		tokens, err := a.creds.Source(h)
		must(err)
		return tokens
	}
	tokens, err := auth.NewSource(auth.Config{
		// EdgeGallery's agents know only one address, that of Mp1.
		URL: a.creds.URLs["mp1"], AccessKeyID: a.creds.AccessKeyID, SecretKey: a.creds.SecretKey, HTTPClient: h, Signed: true,
	})
	must(err)
	return tokens
}

// calling returns an Mp1 client.
func (a *app) calling(h *http.Client, tokens client.TokenSource) *client.Client {
	c, err := client.New(a.creds.URLs["mp1"], client.WithHTTPClient(h), client.WithTokenSource(tokens))
	must(err)
	return c
}

// serve starts the app's server, without TLS, and returns its URL.
func (a *app) serve() string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	notifications := client.NotificationHandler(func(ctx context.Context, n mp1.ServiceAvailabilityNotification) error {
		a.screen.notified(a.name, n)
		for _, ref := range n.ServiceReferences {
			select {
			case a.heard <- ref:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	mux := http.NewServeMux()
	mux.Handle("/notifications", notifications)
	mux.HandleFunc("POST /termination", a.takeNotice)
	mux.HandleFunc("GET /location/v2/zones/{zone}", locate)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = server.Serve(listener) }() // until the program exits
	return "http://" + listener.Addr().String()
}

// token returns the app's current token and shows its claims.
func (a *app) token(ctx context.Context) (string, claims) {
	token, err := a.tokens.Token(ctx)
	must(err)
	c, err := read(token)
	must(err)
	a.screen.note("the token is signed with the key %s, of %s, scope %s, good for %s", c.KeyID, c.Subject, c.Scope, c.life())
	expect(c.Issuer == a.creds.URLs[auth.AuthListener], "the issuer is %s", c.Issuer)
	expect(c.Subject == a.creds.AppInstanceID && c.Scope == "mp1" && c.life() == time.Hour, "the token of the %s says %+v", a.name, c)
	return token, c
}

// refused expects err to be a refusal by the token service with a status, and returns its code.
func refused(err error, status int) (code string) {
	e, ok := errors.AsType[*auth.Error](err)
	expect(ok && e.Status == status, "asking for a token led to %v, want a refusal with status %d", err, status)
	return e.Code
}

// denied expects err to be an Mp1 response with a status, and returns its detail.
func denied(err error, status int) (detail string) {
	e, ok := errors.AsType[*client.Error](err)
	expect(ok && e.Status() == status, "the request led to %v, want a problem with status %d", err, status)
	return e.Problem.Detail
}

// subscribe subscribes to notifications about services with a name that are in one of the states after a change.
func (a *app) subscribe(ctx context.Context, serName string, states ...mp1.ServiceState) {
	_, err := a.Subscribe(ctx, mp1.SerAvailabilityNotificationSubscription{
		CallbackReference: a.url + "/notifications",
		FilteringCriteria: &mp1.FilteringCriteria{SerNames: []string{serName}, States: states},
	})
	must(err)
}

// hears waits for the next notification and expects it to report a change of the service to a state.
func (a *app) hears(ctx context.Context, id string, change mp1.ChangeType, state mp1.ServiceState) {
	select {
	case <-ctx.Done():
		must(context.Cause(ctx))
	case <-time.After(patience):
		must(fmt.Errorf("the %s heard nothing within %s, want %s", a.name, patience, change))
	case ref := <-a.heard:
		expect(ref.SerInstanceID == id && ref.ChangeType == change && ref.State == state && (ref.Link == nil) == (change == mp1.ChangeRemoved),
			"the %s heard %+v, want %s %s of %s", a.name, ref, change, state, id)
	}
}

// finds expects a discovery by name to return the services with the given ids, and returns them.
func (a *app) finds(ctx context.Context, serName string, ids ...string) []mp1.ServiceInfo {
	list, err := a.platform.Discover(ctx, client.Query{Names: []string{serName}})
	must(err)
	expect(len(list) == len(ids), "the %s found %d services, want %d", a.name, len(list), len(ids))
	for i, id := range ids {
		expect(list[i].SerInstanceID == id, "the %s found %s, want %s", a.name, list[i].SerInstanceID, id)
	}
	return list
}
