// Package mm5 is the HTTP interface at the Mm5 reference point, over which the MEC platform manager (MEPM) configures,
// starts, stops and terminates app instances. The standard does not specify it; the resources follow the application
// life cycle management of ETSI GS MEC 010-2 V3.1.1. EdgeGallery's MEPM is served on its own paths beside them.
package mm5

import (
	"bufio"
	"encoding/json"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/problem"
	"github.com/openmep/mep/kit/audit"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/kit/identity"
	"github.com/openmep/mep/mepserver/lifecycle"
	"github.com/openmep/mep/mepserver/operation"
)

// API holds what the handlers need.
type API struct {
	Lifecycle *lifecycle.Manager
	// Events streams changes.
	Events httpx.Handler
	// Deliveries returns the state of notification deliveries by app instance, of all app instances if appInstanceID is empty.
	Deliveries func(appInstanceID string) map[string][]mm5.Delivery
	// Reconcilers returns the drivers that apply rules, with their state.
	Reconcilers func() []mm5.Reconciler
	Audit       *audit.Log
	// Version is the version of the platform.
	Version string
	// PublicURL returns the base of hrefs; if it returns "", they start with the scheme and host of the request. OwnURL
	// is used if the request names no usable host.
	PublicURL func() string
	OwnURL    string
}

const idParam = "appInstanceId"

// Mount adds the API to a router, which must already require the scope mm5.
func (a *API) Mount(r *gin.Engine) {
	g := r.Group(operation.Root)
	get(g, "/app_instances", a.instances)
	one := "/app_instances/:" + idParam
	get(g, one, a.configuration)
	g.PUT(one, a.audited("app.configure", a.configure))
	g.DELETE(one, a.audited("app.unconfigure", a.unconfigure))
	get(g, one+"/status", a.status)
	g.POST(one+"/configure_platform_for_app", a.audited("app.configure", a.configure))
	g.POST(one+"/operate", a.audited("app.operate", a.operate))
	g.POST(one+"/terminate", a.audited("app.terminate", a.terminate))
	get(g, "/app_lcm_op_occs", a.operations)
	get(g, "/app_lcm_op_occs/:operationId", a.operation)
	get(g, "/capabilities", a.capabilities)
	get(g, "/events", a.Events)
	a.mountEdgeGallery(r)
}

// get registers a handler for GET and HEAD; net/http omits the body for HEAD.
func get(g gin.IRoutes, path string, h httpx.Handler) {
	g.GET(path, httpx.Handle(h))
	g.HEAD(path, httpx.Handle(h))
}

func (a *API) audited(action string, h func(*gin.Context) (string, error)) gin.HandlerFunc {
	return identity.Audited(a.Audit, action, idParam, h)
}

func appID(c *gin.Context) string { return identity.CanonicalID(c.Param(idParam)) }

// base returns the base of the hrefs in a response.
func (a *API) base(c *gin.Context) string { return httpx.BaseURL(c, a.PublicURL(), a.OwnURL) }

// query parses the query parameters and rejects those not in names.
func query(c *gin.Context, names ...string) (url.Values, error) {
	if c.Request.URL.RawQuery == "" {
		return nil, nil
	}
	q, err := url.ParseQuery(c.Request.URL.RawQuery)
	if err != nil {
		return nil, errs.New(errs.Invalid, "the query is malformed")
	}
	for name := range q {
		if !slices.Contains(names, name) {
			return nil, errs.New(errs.Invalid, "the query parameter %q is not known here: there is %s", httpx.ParamName(name), strings.Join(names, ", "))
		}
	}
	return q, nil
}

func (a *API) configure(c *gin.Context) (string, error) {
	q, err := query(c, "dryRun")
	if err != nil {
		return "", err
	}
	dry := false
	if v, given := q["dryRun"]; given {
		// A malformed request for a dry run must not cause a real change.
		if len(v) != 1 || v[0] != "true" && v[0] != "false" {
			return "", errs.New(errs.Invalid, "dryRun must be given once, as true or false")
		}
		dry = v[0] == "true"
	}
	in := lifecycle.Configure{AppInstanceID: appID(c)}
	err = httpx.BodyFunc(c, &in.Request, func(faults *problem.InvalidParams) {
		in.Request.Validate(a.Lifecycle.Policy().Limits, faults)
	})
	if err == nil {
		err = a.Lifecycle.CheckRequest(&in.Request)
	}
	if err != nil {
		return "", err
	}
	in.Allowed = a.ifMatch(c)
	if dry {
		diff, err := a.Lifecycle.Diff(in)
		if err != nil {
			return "", err
		}
		return "dry run", httpx.JSON(c, http.StatusOK, diff)
	}
	id, err := a.Lifecycle.Configure(c.Request.Context(), in)
	return a.accepted(c, id, err)
}

// ifMatch returns the check of the request's If-Match against the present configuration, nil if the request has none.
func (a *API) ifMatch(c *gin.Context) func(*lifecycle.Configuration) error {
	if len(c.Request.Header.Values("If-Match")) == 0 {
		return nil
	}
	return func(present *lifecycle.Configuration) error {
		if present == nil {
			return errs.New(errs.PreconditionFailed, "there is no configuration yet")
		}
		return httpx.IfMatch(c, etag(present))
	}
}

func etag(cfg *lifecycle.Configuration) string {
	return `"` + strconv.FormatInt(cfg.Value.Generation, 10) + "-" + strconv.FormatInt(cfg.CreateRevision, 36) + `"`
}

// accepted answers 202 with the location of the operation that was begun.
func (a *API) accepted(c *gin.Context, id string, err error) (string, error) {
	if err != nil {
		return "", err
	}
	c.Header("Location", a.base(c)+operation.Path(id))
	c.Writer.WriteHeader(http.StatusAccepted)
	return "operation " + id, nil
}

func (a *API) unconfigure(c *gin.Context) (string, error) {
	if err := httpx.NoQuery(c); err != nil {
		return "", err
	}
	id, err := a.Lifecycle.Unconfigure(c.Request.Context(), appID(c), false, a.ifMatch(c))
	return a.accepted(c, id, err)
}

func (a *API) operate(c *gin.Context) (string, error) {
	if err := httpx.NoQuery(c); err != nil {
		return "", err
	}
	var body mm5.OperateAppRequest
	if err := httpx.Body(c, &body); err != nil {
		return "", err
	}
	if body.ChangeStateTo == mm5.Started {
		id, err := a.Lifecycle.Start(c.Request.Context(), appID(c))
		return a.accepted(c, id, err)
	}
	id, err := a.Lifecycle.Stop(c.Request.Context(), appID(c), graceOf(body.StopType, body.GracefulStopTimeout))
	return a.accepted(c, id, err)
}

func (a *API) terminate(c *gin.Context) (string, error) {
	if err := httpx.NoQuery(c); err != nil {
		return "", err
	}
	var body mm5.TerminateAppRequest
	if err := httpx.Body(c, &body); err != nil {
		return "", err
	}
	id, err := a.Lifecycle.Terminate(c.Request.Context(), appID(c), graceOf(body.TerminationType, body.GracefulTerminationTimeout), false)
	return a.accepted(c, id, err)
}

func (a *API) configuration(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	cfg, declared, ok := a.Lifecycle.Declared(appID(c))
	if !ok {
		return errs.New(errs.NotFound, "application instance %q has no configuration", appID(c))
	}
	if httpx.NotModified(c, etag(cfg)) {
		return nil
	}
	httpx.SetETag(c, etag(cfg))
	return httpx.JSON(c, http.StatusOK, mm5.AppConfiguration{
		ConfigPlatformForAppRequest: declared, AppInstanceID: appID(c), Generation: cfg.Value.Generation,
	})
}

func (a *API) operations(c *gin.Context) error {
	q, err := query(c, "app_instance_id")
	if err != nil {
		return err
	}
	base := a.base(c)
	list := a.Lifecycle.Operations.Of(identity.CanonicalID(q.Get("app_instance_id")))
	return stream(c, func(yield func(any) bool) {
		for _, item := range list {
			v := a.Lifecycle.View(item, base)
			v.RuleResults = nil // shown only for a single operation
			if !yield(v) {
				return
			}
		}
	})
}

// stream answers with a JSON array, encoding one element at a time.
func stream(c *gin.Context, elements iter.Seq[any]) error {
	c.Header("Content-Type", "application/json")
	c.Writer.WriteHeader(http.StatusOK)
	if c.Request.Method == http.MethodHead {
		c.Writer.WriteHeaderNow()
		return nil
	}
	w := bufio.NewWriterSize(c.Writer, 64<<10)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	next := "["
	for v := range elements {
		_, _ = w.WriteString(next)
		if err := enc.Encode(v); err != nil {
			return nil // the client has gone
		}
		next = ","
	}
	if next == "[" {
		_, _ = w.WriteString(next)
	}
	_, _ = w.WriteString("]")
	_ = w.Flush()
	return nil
}

func (a *API) operation(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	item, err := a.Lifecycle.Operations.Get(c.Param("operationId"))
	if err != nil {
		return err
	}
	c.Header("Cache-Control", "no-store")
	return httpx.JSON(c, http.StatusOK, a.Lifecycle.View(item, a.base(c)))
}

func (a *API) capabilities(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	policy := a.Lifecycle.Policy()
	v := mm5.Capabilities{
		Version: a.Version, Features: append([]mp1.FeatureDependency{}, policy.Features...), Transports: policy.Transports,
		Reconcilers: a.Reconcilers(), Services: a.services(),
		Limits: mm5.Limits{
			TrafficRules: policy.Limits.TrafficRules, DNSRules: policy.Limits.DNSRules,
			TrafficFilters: policy.Limits.Filters, RuleIDLength: mp1.MaxRuleID,
		},
	}
	return httpx.JSON(c, http.StatusOK, v)
}
