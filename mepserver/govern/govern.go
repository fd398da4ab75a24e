// Package govern serves EdgeGallery's MEPM the statistics on the use of services: how often they were called through
// the gateway, who subscribed to them, and which services there are.
package govern

import (
	"bufio"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/kit/watched"
	"github.com/openmep/mep/mepserver/registry"
	"github.com/openmep/mep/mepserver/subscription"
)

// root is the path of these resources at EdgeGallery.
const root = "/mep/service_govern/v1"

// API holds what the handlers need.
type API struct {
	services      *registry.Registry
	subscriptions *subscription.Book
	calls         *watched.Collection[calls]
	view          func() registry.View
	now           func() time.Time
}

// calls is one part of what a replica of the gateway counted in an hour.
type calls struct {
	hour time.Time
	of   map[string]int64 // by service
}

// New adds the collection of call statistics to the mirror, which must not be running yet. view returns how services
// are shown.
func New(m *watched.Mirror, services *registry.Registry, subscriptions *subscription.Book, view func() registry.View) *API {
	return &API{
		services: services, subscriptions: subscriptions, view: view, now: time.Now,
		calls: watched.Add(m, "calls", state.PrefixStatistics, decode),
	}
}

func decode(key string, value []byte, _ int64) (calls, error) {
	hour, _, err := state.SplitStatisticsKey(key)
	if err != nil {
		return calls{}, err
	}
	packed, err := state.Decode[state.PackedStatistics](value)
	if err != nil {
		return calls{}, err
	}
	stats, err := packed.Unpack()
	if err != nil {
		return calls{}, err
	}
	sums := make(map[string]state.CallBucket)
	for _, p := range stats.Pairs {
		sum := sums[p.Service]
		for _, b := range p.Buckets {
			sum.Add(b)
		}
		sums[p.Service] = sum
	}
	c := calls{hour: hour, of: make(map[string]int64, len(sums))}
	for service, sum := range sums {
		c.of[service] = sum.Calls - sum.Refused
	}
	return c, nil
}

// Mount adds the API to a router, which must already require the scope mm5.
func (a *API) Mount(r gin.IRoutes) {
	get(r, "/kong_log", a.callLog)
	get(r, "/subscribe_statistic", a.subscribeStatistic)
	get(r, "/services", a.list)
}

// get registers a handler for GET and HEAD; net/http omits the body for HEAD.
func get(r gin.IRoutes, path string, h httpx.Handler) {
	r.GET(root+path, httpx.Handle(h))
	r.HEAD(root+path, httpx.Handle(h))
}

// render answers with data in EdgeGallery's envelope.
func render[T any](c *gin.Context, data T) error {
	return httpx.JSON(c, http.StatusOK, mm5.Wrapped[T]{Data: data})
}

// callLog answers with the number of calls of each service on each of the last days, as counted by the gateway.
func (a *API) callLog(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	days := a.days()
	names := make(map[string]struct{})
	for item := range a.services.Services().Snapshot().All() {
		names[item.Value.Name] = struct{}{}
	}
	log := mm5.CallLog{AppServices: make([]mm5.ServiceCalls, 0, len(names)), MEPServices: []mm5.ServiceCalls{
		{Name: "serviceRegister", CallTimes: days[state.ServiceRegister]},
		{Name: "serviceDiscovery", CallTimes: days[state.ServiceDiscovery]},
	}}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		log.AppServices = append(log.AppServices, mm5.ServiceCalls{Name: name, CallTimes: days[name]})
	}
	return render(c, log)
}

// days counts the calls of each service on each day, today first.
func (a *API) days() map[string][mm5.CallDays]int64 {
	const day = 24 * time.Hour
	today := a.now().UTC().Truncate(day)
	days := make(map[string][mm5.CallDays]int64)
	for item := range a.calls.Snapshot().From(state.StatisticsHour(today.Add(-(mm5.CallDays - 1) * day))) {
		i := int(today.Sub(item.Value.hour.Truncate(day)) / day)
		if i < 0 || i >= mm5.CallDays {
			continue // the clock of a gateway is ahead
		}
		for service, n := range item.Value.of {
			times := days[service]
			sum := state.CallBucket{Calls: times[i]}
			sum.Add(state.CallBucket{Calls: n})
			times[i] = sum.Calls
			days[service] = times
		}
	}
	return days
}

// subscribeStatistic answers with the services each app instance subscribed to. A subscription to all services does not count.
func (a *API) subscribeStatistic(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	lists, names := make(map[string][]string), make(map[string]struct{})
	for item := range a.services.Services().Snapshot().All() {
		svc := item.Value
		for sub := range a.subscriptions.Interested(svc) {
			if sub.Value.Narrow() {
				lists[sub.Value.AppInstanceID] = append(lists[sub.Value.AppInstanceID], svc.ID)
				names[svc.Name] = struct{}{}
			}
		}
	}
	v := mm5.SubscribeStatistic{
		SubscribeNum:       mm5.SubscribeNum{AppSubscribeNum: len(lists), ServiceSubscribedNum: len(names)},
		SubscribeRelations: make([]mm5.SubscribeRelation, 0, len(lists)),
	}
	for _, app := range slices.Sorted(maps.Keys(lists)) {
		list := lists[app]
		slices.Sort(list)
		v.SubscribeRelations = append(v.SubscribeRelations, mm5.SubscribeRelation{SubscribeAppID: app, ServiceList: slices.Compact(list)})
	}
	return render(c, v)
}

// list answers with all services as Mp1 shows them. It streams them, because there may be too many to assemble first.
func (a *API) list(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	view, snap := a.view(), a.services.Services().Snapshot()
	c.Header("Content-Type", "application/json")
	c.Writer.WriteHeader(http.StatusOK)
	if c.Request.Method == http.MethodHead {
		c.Writer.WriteHeaderNow()
		return nil
	}
	w := bufio.NewWriterSize(c.Writer, 64<<10)
	next := `{"data":[`
	var buf []byte
	for item := range snap.All() {
		buf = item.Value.AppendJSON(append(buf[:0], next...), view)
		if _, err := w.Write(buf); err != nil {
			return nil // the client has gone
		}
		next = ","
	}
	if snap.Len() == 0 {
		_, _ = w.WriteString(next)
	}
	_, _ = w.WriteString(`],"retCode":0,"message":"","params":""}`)
	_ = w.Flush()
	return nil
}
