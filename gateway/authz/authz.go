// Package authz decides which instances of a service a caller may use.
package authz

import (
	"net/netip"
	"slices"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/gateway/call"
	"github.com/openmep/mep/gateway/rule"
	"github.com/openmep/mep/gateway/table"
	"github.com/openmep/mep/gateway/upstream"
	"github.com/openmep/mep/kit/errs"
)

// The reasons for refusing calls.
const (
	ReasonScope    = "scope"
	ReasonRule     = "rule"
	ReasonEntitled = "entitlement"
	ReasonLocal    = "local-only"
	ReasonSharing  = "sharing"
	ReasonOwner    = "owner"
)

// Settings are the operator's settings for authorisation.
type Settings struct {
	// Local are the networks whose clients are local to this MEC host, in addition to its app instances.
	Local []netip.Prefix
	// Open is development mode: any UUID is an app instance, and anonymous callers are admitted.
	Open bool
}

// Judge authorises calls. It is replaced as a whole when settings change.
type Judge struct {
	Settings
	// Granted reports whether the owner of a service has granted a consumer access to it.
	Granted func(owner, serName, consumer string) bool
}

// Admit decides about a call by the scopes and rules of its policy. explicit reports whether a rule about callers (see rule.Rule.Names)
// allowed it.
func (j *Judge) Admit(p *table.Policy, s *rule.Subject) (explicit bool, reason string, err error) {
	if s.Caller != nil {
		for _, scope := range p.Spec.Scopes {
			if !s.Caller.Holds(scope) {
				return false, ReasonScope, errs.New(errs.Forbidden, "this needs the scope %s, which the caller does not have", scope)
			}
		}
	}
	effect, number := rule.Decide(p.Rules, s)
	if number < 0 {
		effect = p.Spec.Default
	}
	if effect == gateway.Deny {
		return false, ReasonRule, errs.New(errs.Forbidden, "the policy of this route does not allow the call")
	}
	return number >= 0 && p.Rules[number].Names(), "", nil
}

// Select returns the endpoints of a group that a call may go to. If there are none, the error says why.
func (j *Judge) Select(c *call.Call, g *table.Group, explicit bool) ([]*upstream.Endpoint, string, error) {
	if g.Uniform && len(c.Policy.Spec.Owners) == 0 {
		reason, err := j.Permit(c, g.Instances[0], explicit)
		return g.Endpoints, reason, err
	}
	list := make([]*upstream.Endpoint, 0, len(g.Endpoints))
	var reason string
	var why error
	for _, i := range g.Instances {
		if r, err := j.Permit(c, i, explicit); err != nil {
			reason, why = r, err
			continue
		}
		list = append(list, i.Endpoints...)
	}
	if len(list) > 0 {
		return list, "", nil
	}
	return nil, reason, why
}

// Permit decides whether a call may go to an instance. explicit is the result of Admit.
func (j *Judge) Permit(c *call.Call, i *table.Instance, explicit bool) (reason string, err error) {
	caller := c.Caller
	if len(c.Services) > 0 && !slices.Contains(c.Services, i.Service) {
		return ReasonEntitled, errKey()
	}
	if owners := c.Policy.Spec.Owners; len(owners) > 0 && !slices.Contains(owners, i.Owner) {
		return ReasonOwner, errs.New(errs.Forbidden, "the policy of the service %s knows its provider under another name than that of this instance", i.Service)
	}
	if caller != nil && caller.Subject == i.Owner {
		return "", nil
	}
	var app *table.App
	if caller != nil {
		app = c.Table.App(caller.Subject)
		if !j.entitled(c, app, i, explicit) {
			return ReasonEntitled, errs.New(errs.Forbidden, "the caller is not entitled to the service %s: %s", i.Service, whyNot(app))
		}
	}
	if i.LocalOnly && app == nil && !j.Open && !rule.Within(c.Info.Client, j.Local) {
		return ReasonLocal, errs.New(errs.Forbidden,
			"the service %s may be consumed on this MEC host only (consumedLocalOnly), and the caller is neither an application instance of it nor in its local networks", i.Service)
	}
	if j.conditional(c.Policy, i) && (caller == nil || !j.Granted(i.Owner, i.Service, caller.Subject)) {
		return ReasonSharing, errs.New(errs.Forbidden,
			"the service %s is shared on request: apply for access with POST %s/access_requests", i.Service, gateway.Base)
	}
	return "", nil
}

// conditional reports whether consumers need a grant. The policy, if it sets Sharing, overrides the registration of the instance.
func (j *Judge) conditional(p *table.Policy, i *table.Instance) bool {
	if p.Spec.Sharing != "" {
		return p.Spec.Sharing == gateway.SharingConditional
	}
	return i.Conditional
}

// errKey returns the error for a call with an API key that is valid for other services only.
func errKey() error {
	return errs.New(errs.Forbidden, "the API key is good for some services only, and this is none of them")
}

// Key decides whether the API key of a call, if it has one, is valid for a target that is not a service.
func (j *Judge) Key(c *call.Call) (reason string, err error) {
	if len(c.Services) > 0 {
		return ReasonEntitled, errKey()
	}
	return "", nil
}

// entitled applies decision 14: an app instance may use the services it declared, or all if it declared none. Other callers need an API
// key, or a rule that names them.
func (j *Judge) entitled(c *call.Call, app *table.App, i *table.Instance, explicit bool) bool {
	if app != nil {
		return app.Declares(i.Service)
	}
	return explicit || c.Caller.Via == ViaAPIKey || j.Open
}

// ViaAPIKey is the value of Caller.Via for callers with an API key.
const ViaAPIKey = string(gateway.ByAPIKey)

func whyNot(app *table.App) string {
	if app != nil {
		return "it did not declare that it uses it"
	}
	return "it is no application instance of this platform, and no rule of the service's policy allows it"
}
