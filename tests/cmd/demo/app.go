package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/openmep/mep/api/client"
	"github.com/openmep/mep/api/mp1"
)

// app is a MEC app: it calls the platform, and has an HTTP server that the platform calls.
type app struct {
	*client.App
	name     string
	platform *client.Client
	url      string // of its server
	heard    chan mp1.ServiceReference
}

// newApp makes an app and starts its server.
func newApp(s *screen, name, appInstanceID, mp1URL string) *app {
	c, err := client.New(mp1URL, client.WithHTTPClient(&http.Client{Transport: window{s, name}, Timeout: 5 * time.Second}))
	must(err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	a := &app{
		App: c.App(appInstanceID), name: name, platform: c, url: "http://" + listener.Addr().String(),
		heard: make(chan mp1.ServiceReference, 100),
	}
	notifications := client.NotificationHandler(func(ctx context.Context, n mp1.ServiceAvailabilityNotification) error {
		s.notified(name, n)
		for _, ref := range n.ServiceReferences {
			select {
			case a.heard <- ref:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	server := &http.Server{Handler: notifications, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = server.Serve(listener) }() // as long as the program runs
	return a
}

// subscribe asks for notifications about services of a name that are in one of the states after a change.
func (a *app) subscribe(ctx context.Context, serName string, states ...mp1.ServiceState) (id string) {
	sub, err := a.Subscribe(ctx, mp1.SerAvailabilityNotificationSubscription{
		CallbackReference: a.url + "/notifications",
		FilteringCriteria: &mp1.FilteringCriteria{SerNames: []string{serName}, States: states},
	})
	must(err)
	return sub.ID
}

// hears waits for the next notification and expects it to report a change of the service to a state.
func (a *app) hears(ctx context.Context, id string, change mp1.ChangeType, state mp1.ServiceState) {
	select {
	case <-ctx.Done():
		must(context.Cause(ctx))
	case <-time.After(6 * time.Second):
		must(fmt.Errorf("the %s heard nothing within 6 s, want %s", a.name, change))
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
