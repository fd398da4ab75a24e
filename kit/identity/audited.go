package identity

import (
	"github.com/gin-gonic/gin"

	"github.com/openmep/mep/kit/audit"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/httpx"
)

// Audited returns a handler that runs h and audits it under the given action. The path parameter param names the target. The
// entry has the detail that h returns or, if h fails, the title of the error's kind.
func Audited(trail *audit.Log, action, param string, h func(*gin.Context) (detail string, err error)) gin.HandlerFunc {
	return httpx.Handle(func(c *gin.Context) error {
		detail, err := h(c)
		e := audit.Entry{
			Action: action, Result: audit.Success, Source: httpx.ClientAddr(c).String(), Target: httpx.Shown(c.Param(param)),
			RequestID: httpx.RequestID(c), Detail: detail,
		}
		if caller := Of(c); caller != nil {
			e.Caller, e.Client, e.Via = caller.Subject, caller.ClientID, caller.Via
		}
		if err != nil {
			e.Result = audit.Failed
			e.Detail = errs.KindOf(err).Title()
		}
		trail.Write(e)
		return err
	})
}
