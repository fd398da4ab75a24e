package rest

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/gateway/export"
	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/kit/identity"
	"github.com/openmep/mep/kit/query"
)

func (a *API) explain(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	var req gateway.ExplainRequest
	if err := httpx.Body(c, &req); err != nil {
		return err
	}
	req.Consumer = identity.CanonicalID(req.Consumer)
	e, err := a.Server.Explain(c.Request.Context(), req)
	if err != nil {
		return err
	}
	return httpx.JSON(c, http.StatusOK, e)
}

func (a *API) status(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	return httpx.JSON(c, http.StatusOK, a.Server.Status())
}

// StatisticsQuery selects counts of calls.
type StatisticsQuery struct {
	// Service and Consumer restrict the counts; "" means all.
	Service, Consumer string
	// Resolution is gateway.StatMinute, StatHour or StatDay.
	Resolution string
	// From and To bound the start of buckets; To is exclusive.
	From, To time.Time
}

// kept is the retention time of statistics.
const kept = 7 * 24 * time.Hour

// spans are the default time spans by resolution.
var spans = map[string]time.Duration{gateway.StatMinute: time.Hour, gateway.StatHour: 24 * time.Hour, gateway.StatDay: kept}

func (a *API) statistics(c *gin.Context) error {
	p, err := query.ReadFilled(c, "service", "consumer", "resolution", "from", "to")
	if err != nil {
		return err
	}
	q := StatisticsQuery{Service: p.Get("service"), Consumer: identity.CanonicalID(p.Get("consumer"))}
	q.Resolution = p.OneOf("resolution", gateway.StatHour, gateway.StatMinute, gateway.StatDay)
	q.To = p.Moment("to", time.Now().UTC())
	q.From = p.Moment("from", q.To.Add(-spans[q.Resolution]))
	if p.Err() == nil && !q.From.Before(q.To) {
		p.Faults.Add("from", "must be before to")
	}
	if err := p.Err(); err != nil {
		return err
	}
	s, err := a.Server.Statistics(c.Request.Context(), q)
	if err != nil {
		return err
	}
	return httpx.JSON(c, http.StatusOK, s)
}

func (a *API) quotas(c *gin.Context) error {
	p, err := query.ReadFilled(c, "route", "consumer", "limit", "after")
	if err != nil {
		return err
	}
	at := p.Page()
	if err := p.Err(); err != nil {
		return err
	}
	list, err := a.Server.Quotas(c.Request.Context(), p.Get("route"), identity.CanonicalID(p.Get("consumer")))
	if err != nil {
		return err
	}
	place := func(u gateway.QuotaUse) string {
		return strings.Join([]string{u.Route, u.Consumer, u.Per, u.Window.UTC().Format(time.RFC3339)}, "\x00")
	}
	return httpx.JSON(c, http.StatusOK, some(c, p, at, "/quotas", sorted(list, at.After, place), place))
}

func (a *API) upstreams(c *gin.Context) error {
	return whole(c, "/upstreams", a.Server.Upstreams, func(t gateway.TargetView) string { return t.URL + "\x00" + t.Instance })
}

var formats = map[string]func(export.Table) ([]byte, error){"kong": export.Kong, "envoy": export.Envoy}

func (a *API) export(c *gin.Context) error {
	p, err := query.ReadFilled(c, "format")
	if err != nil {
		return err
	}
	format := p.OneOf("format", "", "kong", "envoy")
	if format == "" && p.Err() == nil {
		p.Faults.Add("format", "is required: kong or envoy")
	}
	if err := p.Err(); err != nil {
		return err
	}
	text, err := formats[format](export.Table{Routes: slices.Collect(a.Server.Routes("")), Policies: a.Server.Policies()})
	if err != nil {
		return err
	}
	c.Data(http.StatusOK, "application/yaml", text)
	return nil
}
