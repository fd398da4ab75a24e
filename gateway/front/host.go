package front

import (
	"net/http"
	"net/url"

	"github.com/openmep/mep/gateway/call"
	"github.com/openmep/mep/gateway/match"
	"github.com/openmep/mep/gateway/table"
	"github.com/openmep/mep/kit/errs"
)

// byHost directs a call to the service or the instance that its host names. Static routes for that host take precedence. Static routes for
// any host and routes of the platform are not considered: all other paths on the host belong to the service, and a host without a service
// leads nowhere else. When serNames differ only in case, table.Label decides which one a host name stands for: at most one, under the
// policy of its own spelling.
//
// The certificate that the connection was opened with does not matter (RFC 9110 7.4): all hosts are served with the same one, and callers
// are judged call by call, so that clients may use one connection for several hosts.
func (h *Handler) byHost(c *call.Call, r *http.Request, path *match.Path, place match.Place) (reason string, err error) {
	if c.Table.Hosted() {
		switch route, pattern, outcome := c.Table.Static().FindHost(r.Host, r.Method, path, r.Header); outcome {
		case match.Found:
			h.static(c, route, path, pattern)
			return "", nil
		case match.WrongMethod:
			return notAllowed(c, r, c.Table.Static().AllowedHost(r.Host, path, r.Header))
		}
	}
	if place.Label == "" || path.Asterisk() {
		domain := c.Table.Domain()
		return ReasonNoRoute, errs.New(errs.NotFound,
			"no service has this host: there are {serName}.%s and {serInstanceId}.instances.%s, for names that are labels of host names", domain, domain)
	}
	c.Path = path.Raw()
	kind, name := ServicesPath, place.Label
	if place.Instance {
		kind = InstancesPath
		instance := c.Table.LabelledInstance(name)
		if instance != nil {
			name = instance.ID
		}
		toInstance(c, instance)
	} else {
		var group *table.Group
		if label := c.Table.Labelled(name); label != nil && label.Name != "" {
			name, group = label.Name, label.Group
		}
		toService(c, name, group)
	}
	r.URL = below(r.URL, "/"+kind+"/"+name)
	return "", nil
}

// below returns the target that the call would have without host names. What depends on paths then applies to calls by host, too: masking
// in records, the paths that filters exclude, and the questions of external authorisation. The prefix needs no escaping.
func below(u *url.URL, prefix string) *url.URL {
	by := *u
	by.Path = prefix + u.Path
	if u.RawPath != "" {
		by.RawPath = prefix + u.RawPath
	}
	return &by
}
