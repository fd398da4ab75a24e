package mm5

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/mepserver/apps"
	"github.com/openmep/mep/mepserver/lifecycle"
	"github.com/openmep/mep/mepserver/operation"
	"github.com/openmep/mep/mepserver/registry"
)

// graceOf returns how an app instance is to be stopped or terminated.
func graceOf(t mm5.StopType, seconds *int) lifecycle.Grace {
	g := lifecycle.Grace{Graceful: t == mm5.Graceful}
	if seconds != nil {
		g.Timeout = time.Duration(*seconds) * time.Second
	}
	return g
}

var lifecycles = []mm5.Lifecycle{
	mm5.LifecycleKnown, mm5.LifecycleConfigured, mm5.LifecycleStarted, mm5.LifecycleStopping, mm5.LifecycleStopped, mm5.LifecycleTerminating,
}

func (a *API) instances(c *gin.Context) error {
	q, err := query(c, "lifecycle")
	if err != nil {
		return err
	}
	want, filtered := q["lifecycle"]
	if filtered && (len(want) != 1 || !slices.Contains(lifecycles, mm5.Lifecycle(want[0]))) {
		return errs.New(errs.Invalid, "lifecycle must be given once, as one of %v", lifecycles)
	}
	consumers := a.consumers()
	deliveries := a.Deliveries("")
	base, snap := a.base(c), a.Lifecycle.Apps.Collection().Snapshot()
	return stream(c, func(yield func(any) bool) {
		for item := range snap.All() {
			if filtered && want[0] != string(item.Value.Record.State()) {
				continue
			}
			if !yield(a.instance(item, base, consumers, deliveries, fewConsumers)) {
				return
			}
		}
	})
}

func (a *API) status(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	item, ok := a.Lifecycle.Apps.Get(appID(c))
	if !ok {
		return errs.New(errs.NotFound, "there is no application instance %q", appID(c))
	}
	c.Header("Cache-Control", "no-store")
	return httpx.JSON(c, http.StatusOK, a.instance(item, a.base(c), a.consumers(), a.Deliveries(appID(c)), allConsumers))
}

// instance returns an app instance as the MEPM sees it.
func (a *API) instance(item *apps.Item, base string, who consumers, deliveries map[string][]mm5.Delivery, most int) mm5.AppInstance {
	id, rec := item.Value.ID, &item.Value.Record
	v := mm5.AppInstance{
		AppInstanceID: id, AppName: rec.Name, Lifecycle: rec.State(), Generation: rec.Generation, Created: rec.Created,
		Services: []mm5.AppService{}, Rules: a.Lifecycle.RuleResults(id), Deliveries: append([]mm5.Delivery{}, deliveries[id]...),
	}
	if !rec.Ready.IsZero() {
		v.Ready = &rec.Ready
	}
	v.Links.Self.Href = base + operation.AppPath(id) + "/status"
	if _, ok := a.Lifecycle.Configuration(id); ok {
		v.Links.Configuration = &mp1.LinkType{Href: base + operation.AppPath(id)}
	}
	if op, err := a.Lifecycle.Operations.Get(rec.Operation); rec.Operation != "" && err == nil {
		v.Operation = op.Value.ID
		v.Links.Operation = &mp1.LinkType{Href: base + operation.Path(op.Value.ID)}
	}
	for svc := range a.Lifecycle.Registry.Of(id) {
		v.Services = append(v.Services, service(svc, who, most))
	}
	return v
}

// services lists all services with their consumers.
func (a *API) services() []mm5.AppService {
	who := a.consumers()
	list := []mm5.AppService{}
	for item := range a.Lifecycle.Registry.Services().Snapshot().All() {
		list = append(list, service(item, who, fewConsumers))
	}
	return list
}

// Number of consumers shown per service: all of them when a single service, or the services of a single app, are shown.
const (
	fewConsumers = 20
	allConsumers = 1 << 30
)

func service(item *registry.Item, who consumers, most int) mm5.AppService {
	svc := item.Value
	info, err := svc.Info()
	if err != nil {
		info.Version = "" // cannot happen: the record was decoded before
	}
	list := who.of(item)
	return mm5.AppService{
		SerInstanceID: svc.ID, SerName: svc.Name, Version: info.Version, State: svc.State,
		Consumers: list[:min(len(list), most)], ConsumerCount: len(list),
	}
}

// consumers finds the consumers of a service: the app instances that declared that they need a service of its name, and
// those with a subscription to it in particular.
type consumers struct {
	byName     map[string][]string
	subscribed func(*registry.Item) []string
}

func (a *API) consumers() consumers {
	who := consumers{byName: make(map[string][]string)}
	for item := range a.Lifecycle.Apps.Collection().Snapshot().All() {
		for _, name := range item.Value.Sees() {
			who.byName[name] = append(who.byName[name], item.Value.ID)
		}
	}
	who.subscribed = func(svc *registry.Item) []string {
		var list []string
		for sub := range a.Lifecycle.Availability.Interested(svc.Value) {
			if sub.Value.Narrow() {
				list = append(list, sub.Value.AppInstanceID)
			}
		}
		return list
	}
	return who
}

func (w consumers) of(svc *registry.Item) []string {
	list := append(w.subscribed(svc), w.byName[svc.Value.Name]...)
	list = slices.DeleteFunc(list, func(id string) bool { return id == svc.Value.AppInstanceID })
	slices.SortFunc(list, strings.Compare)
	return append([]string{}, slices.Compact(list)...)
}
