package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"time"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/gateway/call"
	"github.com/openmep/mep/gateway/extauth"
	"github.com/openmep/mep/gateway/table"
	"github.com/openmep/mep/kit/errs"
)

// external asks an external authoriser about a call.
func (co *Compiler) external(spec *gateway.ExternalAuth) (stage, error) {
	authoriser, err := extauth.New(spec, co.External, co.Log, co.ExternalMetrics)
	if err != nil {
		return stage{}, err
	}
	return stage{StageExternal, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c := call.Of(r)
			d, err := ask(c, r, authoriser)
			switch {
			case err != nil:
				co.failExternal(c, w, r, err)
			case d.Allowed:
				d.Apply(r.Header)
				next.ServeHTTP(w, r)
			default:
				c.Reason = ReasonExternal
				co.Refused(ReasonExternal)
				if d.Status == http.StatusUnauthorized || d.Status == http.StatusForbidden {
					co.deny(c, r, "external authorization refused the call")
				}
				maps.Copy(w.Header(), d.Header)
				w.WriteHeader(d.Status)
				_, _ = w.Write(d.Body)
			}
		})
	}}, nil
}

// The reasons for refusals by external authorisation.
const (
	ReasonExternal     = "external-authorization"
	ReasonExternalAway = "external-authorization-away"
)

// ask asks the authoriser about a call.
func ask(c *call.Call, r *http.Request, a *extauth.Authoriser) (*extauth.Decision, error) {
	body, err := a.Body(r)
	if err != nil {
		return nil, err
	}
	return a.Decide(r.Context(), &gateway.ExternalAuthRequest{
		RequestID: c.Info.RequestID, Method: r.Method, Host: r.Host, Path: r.URL.EscapedPath(), Query: r.URL.RawQuery,
		Headers: a.Headers(r.Header), Body: body, Client: c.Info.Client.String(), Consumer: c.Info.Consumer, Scopes: c.Info.Scopes,
		Route: c.Info.Route, Service: c.Info.Service,
	})
}

func (co *Compiler) failExternal(c *call.Call, w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case r.Context().Err() != nil && errors.Is(err, context.Cause(r.Context())):
		co.abandon(c, err)
	case errs.KindOf(err) == errs.TooLarge:
		co.Fail(c, w, ReasonTooLarge, err)
	default:
		co.Fail(c, w, ReasonExternalAway, err)
	}
}

// spike lets calls through at an even pace.
func (co *Compiler) spike(p *table.Policy) stage {
	limit, own := p.Spec.SpikeArrest, p.Definition.SpikeArrest != nil
	return stage{StageSpike, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c := call.Of(r)
			before := c.Since()
			ok, after, err := co.Spike.Wait(r.Context(), counted(c, own), consumer(c), limit)
			c.Held += c.Since() - before
			switch {
			case err != nil:
				co.abandon(c, err)
			case !ok:
				rateLimit(w, StageSpike, after)
				co.Fail(c, w, ReasonSpike, errs.New(errs.TooManyRequests,
					"calls come faster than the %d a %s that the spike arrest of this route lets through", limit.Calls, limit.Per).After(after))
			default:
				next.ServeHTTP(w, r)
			}
		})
	}}
}

// concurrency bounds how many calls of a consumer are in flight.
func (co *Compiler) concurrency(p *table.Policy) stage {
	most, own := p.Spec.Concurrent, p.Definition.Concurrent != 0
	return stage{StageConcurrency, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c := call.Of(r)
			place, ok := co.InFlight.Enter(counted(c, own), consumer(c), most)
			if !ok {
				rateLimit(w, StageConcurrency, retryConcurrent)
				co.Fail(c, w, ReasonConcurrency, errs.New(errs.TooManyRequests,
					"%d calls of this consumer are under way already, and this route lets no more", most).After(retryConcurrent))
				return
			}
			defer place.Leave()
			next.ServeHTTP(w, r)
		})
	}}
}

// quota counts calls.
func (co *Compiler) quota(p *table.Policy) stage {
	spec, own := &p.Spec, p.Definition.Quotas != nil
	return stage{StageQuota, co.check(func(c *call.Call, w http.ResponseWriter, r *http.Request) (string, error) {
		before := c.Since()
		v := co.Quotas.Take(r.Context(), counted(c, own), consumer(c), spec.Quotas, spec.WhenStoreAway)
		c.Held += c.Since() - before
		c.Quota = &v
		v.SetHeader(w.Header())
		switch {
		case v.Allowed:
			return "", nil
		case v.Away:
			return ReasonStoreAway, errs.New(errs.Unavailable, "how many calls were made cannot be found out at present").After(v.RetryAfter())
		}
		return ReasonQuota, errs.New(errs.TooManyRequests, "the quota of %d calls a %s is used up", v.Limit, v.Per).After(v.RetryAfter())
	})}
}

// abandon ends a call whose client no longer waits. It panics because net/http takes a handler that returns without an answer for success.
func (co *Compiler) abandon(c *call.Call, err error) {
	co.Gone(c, err)
	panic(http.ErrAbortHandler)
}

// rateLimit names the limit that a call was refused for (draft-ietf-httpapi-ratelimit-headers).
func rateLimit(w http.ResponseWriter, name string, after time.Duration) {
	w.Header()["Ratelimit"] = []string{fmt.Sprintf("%q;r=0;t=%d", name, int64(math.Ceil(after.Seconds())))}
}
