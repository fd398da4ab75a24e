package pipeline

import (
	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/gateway/authn"
	"github.com/openmep/mep/gateway/call"
	"github.com/openmep/mep/gateway/rule"
	"github.com/openmep/mep/gateway/table"
	"github.com/openmep/mep/kit/errs"
)

// Again implements tenure.Judge. It decides as authentication and authorization would about a new call, by the Policy of c, which is the
// one in force now. The error says why a new call would be refused. Again may change c, which is a copy.
func (co *Compiler) Again(c *call.Call, method string, to []*table.Instance, withdrawn error) error {
	p := c.Policy
	if p.Closed {
		return errs.New(errs.Forbidden, "the policy of the call cannot be applied here any more")
	}
	platform := c.Route != nil && c.Route.Kind == gateway.KindPlatform
	methods := authn.Recognise
	if !platform {
		methods = co.Authenticator.MethodsOf(&p.Spec)
	}
	switch {
	case withdrawn != nil && !methods.Lenient:
		return withdrawn
	case withdrawn == nil && methods.Take(c):
	case methods.Anonymous:
		c.Caller, c.Token, c.Key, c.Services = nil, "", nil, nil // as for a new call
	default:
		return errs.New(errs.Forbidden, "the policy of the call takes no such proof of who calls any more")
	}
	s := rule.Subject{Caller: c.Caller, Client: c.Info.Client, Method: method, Path: c.Path}
	if platform {
		s.Path = withoutPrefix(c.Path)
	}
	explicit, _, err := co.Judge.Admit(p, &s)
	switch {
	case err != nil:
	case len(to) > 0:
		for _, i := range to {
			if _, err = co.Judge.Permit(c, i, explicit); err == nil {
				return nil
			}
		}
	case c.Group != nil:
		_, _, err = co.Judge.Select(c, c.Group, explicit)
	default:
		_, err = co.Judge.Key(c)
	}
	return err
}
