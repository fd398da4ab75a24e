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

// The names that metrics and records use for the routes of the registry.
const (
	ServicesRoute  = "services"
	InstancesRoute = "instances"
)

// Route finds the target of a call. The error says why there is none.
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

// notAllowed refuses a call for which there are routes, but only with other methods.
func notAllowed(c *call.Call, r *http.Request, methods []string) (reason string, err error) {
	allowed := strings.Join(methods, ", ")
	c.Writer.Header()["Allow"] = []string{allowed}
	return ReasonMethod, errs.New(errs.MethodNotAllowed, "%s is not supported here: use %s", r.Method, allowed)
}

// static directs a call to a static route.
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

// registered directs a call to a service or an instance of the registry. Only callers who prove who they are learn whether it exists.
func (h *Handler) registered(c *call.Call, kind string, path *match.Path) {
	name := path.Segments()[1].Text
	c.Path = path.After(2)
	if kind == ServicesPath {
		toService(c, name, c.Table.Group(name))
		return
	}
	toInstance(c, c.Table.Instance(name))
}

// toService directs a call to the service with the given name; group is nil when there is no such service.
func toService(c *call.Call, name string, group *table.Group) {
	c.Info.Route = ServicesRoute
	// An unknown name is not counted as a service, because any stranger can choose it.
	if c.Group = group; group != nil {
		c.Info.Service = name
	}
	c.Policy = c.Table.Policy(name)
}

// toInstance directs a call to an instance, which is nil when there is none.
func toInstance(c *call.Call, instance *table.Instance) {
	c.Info.Route = InstancesRoute
	if c.Instance = instance; instance != nil {
		c.Info.Service = instance.Service
	}
	c.Policy = c.Table.Policy(c.Info.Service)
}

// mp1Call returns the name of an Mp1 call that statistics count; "" for other calls.
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
