package front

import (
	"net/http"
	"strings"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/gateway/call"
	"github.com/openmep/mep/gateway/match"
	"github.com/openmep/mep/gateway/table"
	"github.com/openmep/mep/kit/errs"
)

// The first segments of the paths of services.
const (
	ServicesPath  = "services"
	InstancesPath = "instances"
)

// The names of the routes of the registry in metrics and records.
const (
	ServicesRoute  = "services"
	InstancesRoute = "instances"
)

// Route finds what a call is for. The error says why there is nothing.
func (h *Handler) Route(c *call.Call, r *http.Request, path *match.Path) (reason string, err error) {
	if place, below := c.Table.Domain().Below(r.Host); below {
		return h.byHost(c, r, path, place)
	}
	first := ""
	if segments := path.Segments(); len(segments) > 0 {
		first = segments[0].Name
	}
	registered := first == ServicesPath || first == InstancesPath
	if !registered || c.Table.Hosted() {
		switch route, pattern, outcome := c.Table.Static().Find(r.Host, r.Method, path, r.Header); {
		case outcome == match.Found:
			h.static(c, route, path, pattern)
			return "", nil
		case outcome == match.WrongMethod && !registered:
			return notAllowed(c, r, c.Table.Static().Allowed(r.Host, path, r.Header))
		}
	}
	if registered && len(path.Segments()) > 1 {
		h.registered(c, first, path)
		return "", nil
	}
	return ReasonNoRoute, errs.New(errs.NotFound, "no route leads from %s", r.URL.Path)
}

// notAllowed refuses a call that there are routes for, but with other methods.
func notAllowed(c *call.Call, r *http.Request, methods []string) (reason string, err error) {
	allowed := strings.Join(methods, ", ")
	c.Writer.Header()["Allow"] = []string{allowed}
	return ReasonMethod, errs.New(errs.MethodNotAllowed, "%s is not supported here: use %s", r.Method, allowed)
}

// static takes a call to a static route.
func (h *Handler) static(c *call.Call, route *table.Route, path *match.Path, pattern *match.Pattern) {
	c.Route, c.Policy, c.Endpoints = route, route.Policy, route.Endpoints
	c.Info.Route = route.ID
	if route.Rewriter != nil {
		c.Path = route.Rewriter.Apply(path, pattern)
	} else {
		c.Path = path.Raw()
	}
	if d := route.Definition; d != nil && d.Service != "" {
		c.Info.Service = d.Service
		if c.Group = route.Group; c.Group == nil {
			c.Group = c.Table.Group(d.Service)
		}
	}
}

// registered takes a call to a service of the registry. Whether there is such a service is said to those only who prove who they are.
func (h *Handler) registered(c *call.Call, kind string, path *match.Path) {
	name := path.Segments()[1].Text
	c.Path = path.After(2)
	if kind == ServicesPath {
		toService(c, name, c.Table.Group(name))
		return
	}
	toInstance(c, c.Table.Instance(name))
}

// toService takes a call to the service of a name; the group is nil when there is none.
func toService(c *call.Call, name string, group *table.Group) {
	c.Info.Route = ServicesRoute
	// What is no service is not counted as one: the name comes from a stranger.
	if c.Group = group; group != nil {
		c.Info.Service = name
	}
	c.Policy = c.Table.Policy(name)
}

// toInstance takes a call to an instance; nil when there is none.
func toInstance(c *call.Call, instance *table.Instance) {
	c.Info.Route = InstancesRoute
	if c.Instance = instance; instance != nil {
		c.Info.Service = instance.Service
	}
	c.Policy = c.Table.Policy(c.Info.Service)
}

// mp1Call names calls of Mp1 that statistics count, "" for others.
func mp1Call(r *http.Request) string {
	path := r.URL.Path
	switch {
	case r.Method == http.MethodGet && strings.Contains(path, "/mec_service_mgmt/v1/services"):
		return state.ServiceDiscovery
	case r.Method == http.MethodPost && strings.Contains(path, "/mec_service_mgmt/v1/applications/") && strings.HasSuffix(path, "/services"):
		return state.ServiceRegister
	}
	return ""
}
