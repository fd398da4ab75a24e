package mm5

import (
	"context"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/problem"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/mepserver/apps"
	"github.com/openmep/mep/mepserver/lifecycle"
)

// mountEdgeGallery adds the paths that EdgeGallery's MEPM uses. The message formats are EdgeGallery's; the behaviour is
// that of the other resources.
func (a *API) mountEdgeGallery(r gin.IRoutes) {
	const config = "/mepcfg/app_lcm/v1/applications/:" + idParam + "/appd_configuration"
	r.POST(config, a.audited("app.configure", a.createAppD))
	r.PUT(config, a.audited("app.configure", a.replaceAppD))
	r.DELETE(config, a.audited("app.unconfigure", a.removeAppD))
	get(r, config, a.appD)
	get(r, "/mepcfg/app_lcm/v1/tasks/:operationId/appd_configuration", a.task)
	get(r, "/mepcfg/mec_platform_config/v1/capabilities", a.platformCapabilities)
	get(r, "/mepcfg/mec_platform_config/v1/capabilities/:capabilityId", a.platformCapability)
	for _, root := range []string{"/mep/mec_app_support/v1", "/mec_app_support/v1"} {
		r.DELETE(root+"/applications/:"+idParam+"/AppInstanceTermination", a.audited("app.terminate", a.endInstance))
	}
}

// progress answers with the progress of an operation in EdgeGallery's format. EdgeGallery's MEPM accepts no status but 200.
func (a *API) progress(c *gin.Context, id string) error {
	item, err := a.Lifecycle.Operations.Get(id)
	if err != nil {
		return err
	}
	return httpx.JSON(c, http.StatusOK, mm5.TaskProgressOf(a.Lifecycle.View(item, a.base(c))))
}

// begun answers with the progress of an operation that was just stored; this process's copy may not show it yet.
func (a *API) begun(c *gin.Context, id string) (string, error) {
	detail := "operation " + id
	if _, err := a.Lifecycle.Operations.Get(id); err == nil {
		return detail, a.progress(c, id)
	}
	return detail, httpx.JSON(c, http.StatusOK, mm5.TaskProgress{
		TaskID: id, AppInstanceID: appID(c), ConfigResult: mm5.ConfigProcessing, ConfigPhase: "0",
	})
}

// putAppD stores a configuration if allowed permits it.
func (a *API) putAppD(c *gin.Context, allowed func(body *mm5.AppDConfig, present *lifecycle.Configuration) error) (string, error) {
	if err := httpx.NoQuery(c); err != nil {
		return "", err
	}
	var body mm5.AppDConfig
	err := httpx.BodyFunc(c, &body, func(faults *problem.InvalidParams) { body.Validate(a.Lifecycle.Policy().Limits, faults) })
	if err != nil {
		return "", err
	}
	id, err := a.Lifecycle.Configure(c.Request.Context(), lifecycle.Configure{
		AppInstanceID: appID(c), Request: body.Request(), EdgeGallery: true, SupportsMp1: body.AppSupportMp1,
		Allowed: func(present *lifecycle.Configuration) error { return allowed(&body, present) },
	})
	if err != nil {
		return "", err
	}
	return a.begun(c, id)
}

func (a *API) createAppD(c *gin.Context) (string, error) {
	return a.putAppD(c, func(_ *mm5.AppDConfig, present *lifecycle.Configuration) error {
		if present != nil {
			return errs.New(errs.Invalid, "application instance %s is configured already: PUT replaces its configuration", appID(c))
		}
		return nil
	})
}

func (a *API) replaceAppD(c *gin.Context) (string, error) {
	return a.putAppD(c, func(body *mm5.AppDConfig, present *lifecycle.Configuration) error {
		switch {
		case present == nil:
			return errs.New(errs.NotFound, "application instance %s has no configuration: POST creates one", appID(c))
		case present.Value.Request.AppName != body.AppName:
			return errs.New(errs.Invalid, "appName must be that of the configuration, %q", present.Value.Request.AppName)
		}
		return nil
	})
}

func (a *API) removeAppD(c *gin.Context) (string, error) {
	if err := httpx.NoQuery(c); err != nil {
		return "", err
	}
	id, err := a.Lifecycle.Unconfigure(c.Request.Context(), appID(c), true, nil)
	if err != nil {
		return "", err
	}
	return a.begun(c, id)
}

func (a *API) appD(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	cfg, declared, ok := a.Lifecycle.Declared(appID(c))
	if !ok {
		return errs.New(errs.NotFound, "application instance %q has no configuration", appID(c))
	}
	return httpx.JSON(c, http.StatusOK, mm5.AppDConfigOf(declared, cfg.Value.SupportsMp1))
}

func (a *API) task(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	return a.progress(c, c.Param("operationId"))
}

func (a *API) platformCapabilities(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	list := []mm5.PlatformCapability{}
	for _, svc := range a.services() {
		list = append(list, capability(svc))
	}
	return httpx.JSON(c, http.StatusOK, list)
}

func (a *API) platformCapability(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	item, err := a.Lifecycle.Registry.Get(apps.Reader{}, c.Param("capabilityId"))
	if err != nil {
		return err
	}
	return httpx.JSON(c, http.StatusOK, capability(service(item, a.consumers(), allConsumers)))
}

func capability(svc mm5.AppService) mm5.PlatformCapability {
	v := mm5.PlatformCapability{
		CapabilityID: svc.SerInstanceID, CapabilityName: svc.SerName, Status: svc.State, Version: svc.Version,
		Consumers: []mm5.CapabilityConsumer{},
	}
	for _, id := range svc.Consumers {
		v.Consumers = append(v.Consumers, mm5.CapabilityConsumer{ApplicationInstanceID: id})
	}
	return v
}

// endTimeout is how long the response waits for a termination that needs no confirmation: EdgeGallery's MEPM removes
// the app once it has the response.
const endTimeout = 5 * time.Second

// endInstance terminates an app instance, gracefully if the app has a termination subscription. As at EdgeGallery, an
// unknown instance is not an error.
func (a *API) endInstance(c *gin.Context) (string, error) {
	if err := httpx.NoQuery(c); err != nil {
		return "", err
	}
	id := appID(c)
	detail := "is not known"
	if _, ok := a.Lifecycle.Apps.Get(id); ok {
		var grace lifecycle.Grace
		for range a.Lifecycle.Termination.Of(id) {
			grace.Graceful = true
			break
		}
		op, err := a.Lifecycle.Terminate(c.Request.Context(), id, grace, true)
		if err != nil {
			return "", err
		}
		detail = "operation " + op
		if !grace.Graceful {
			ctx, cancel := context.WithTimeout(c.Request.Context(), endTimeout)
			defer cancel()
			a.Lifecycle.Apps.WaitGone(ctx, id)
		}
	}
	httpx.Raw(c, http.StatusOK, []byte(`""`))
	return detail, nil
}
