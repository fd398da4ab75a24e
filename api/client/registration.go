package client

import (
	"context"
	"net/http"

	"github.com/openmep/mep/api/mp1"
)

// RegisterApp registers an app that is already running (MEC 011 7.2.13.3.4). Info.AppInstanceID of the result is the
// application instance that the token identifies, for use with Client.App. The request is not retried. IsConflict holds for the
// error when the instance is already registered.
func (c *Client) RegisterApp(ctx context.Context, info mp1.AppInfo) (*Tagged[mp1.AppInfo], error) {
	return tagged[mp1.AppInfo](ctx, c, request{method: http.MethodPost, root: supportRoot, path: []string{"registrations"}, body: info})
}

// registered returns a request for the app's registration.
func (a *App) registered(method string) request {
	return request{method: method, root: supportRoot, path: []string{"registrations", a.id}, repeatable: true}
}

// Registration reads the app's registration (MEC 011 7.2.14.3.1).
func (a *App) Registration(ctx context.Context) (*Tagged[mp1.AppInfo], error) {
	return tagged[mp1.AppInfo](ctx, a.c, a.registered(http.MethodGet))
}

// UpdateRegistration replaces the app's registration with info as a whole (MEC 011 7.2.14.3.2) and returns the new entity-tag.
func (a *App) UpdateRegistration(ctx context.Context, info mp1.AppInfo, pre ...Precondition) (etag string, err error) {
	r := a.registered(http.MethodPut)
	r.body = info
	r.apply(pre)
	ans, err := a.c.do(ctx, r, nil)
	if err != nil {
		return "", err
	}
	return ans.header.Get("ETag"), nil
}

// Deregister removes the app's registration (MEC 011 7.2.14.3.5). An instance that the platform knows only by its registration
// is then removed with everything it has.
func (a *App) Deregister(ctx context.Context, pre ...Precondition) error {
	return a.c.remove(ctx, a.registered(http.MethodDelete), pre)
}
