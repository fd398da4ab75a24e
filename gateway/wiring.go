package gateway

import (
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/gateway/authz"
	"github.com/openmep/mep/gateway/book"
	"github.com/openmep/mep/gateway/rule"
	"github.com/openmep/mep/gateway/table"
	"github.com/openmep/mep/gateway/tenure"
	"github.com/openmep/mep/kit/watched"
)

// memberKind is the part of the keys of members that stands for replicas of the gateway.
const memberKind = "gateway/"

// members counts the replicas.
type members struct{ n atomic.Int64 }

func newMembers(m *watched.Mirror) *members {
	c := &members{}
	list := watched.Add(m, "gateway_members", state.PrefixMembers+memberKind, func(string, []byte, int64) (struct{}, error) { return struct{}{}, nil })
	list.Observe(func(ch watched.Change[struct{}]) {
		switch {
		case ch.Old == nil:
			c.n.Add(1)
		case ch.New == nil:
			c.n.Add(-1)
		}
	})
	return c
}

func (c *members) count() int { return max(1, int(c.n.Load())) }

func networksOf(list []string) ([]netip.Prefix, error) {
	nets, err := rule.Networks(list)
	if err != nil {
		return nil, fmt.Errorf("proxies: %w", err)
	}
	return nets, nil
}

func (g *Gateway) judge(local []netip.Prefix) *authz.Judge {
	return &authz.Judge{Settings: authz.Settings{Local: local, Open: g.common.Dev}, Granted: g.book.Access.Granted}
}

// tenure makes the registry that ends calls in flight.
func (g *Gateway) tenure() *tenure.Calls {
	return tenure.New(tenure.Config{
		Table: g.handler.Table.Load, Judge: func() tenure.Judge { return g.compiler.Load() }, Guard: g.node.Guard, Book: g.book,
		Audit: g.env.Audit, Log: g.env.Log, Registerer: g.env.Metrics,
	})
}

// offers tells the book which services consumers may apply for.
type offers struct{ g *Gateway }

// Offers implements book.Services.
func (o offers) Offers(consumer, serName string) []book.Offer {
	t := o.g.handler.Table.Load()
	group := t.Group(serName)
	if group == nil || !mayKnow(t.App(consumer), serName) {
		return nil
	}
	var list []book.Offer
	for _, i := range group.Instances {
		offer := book.Offer{Owner: i.Owner, SerName: serName}
		if !slices.Contains(list, offer) {
			list = append(list, offer)
		}
	}
	return list
}

// Instance implements book.Services.
func (o offers) Instance(consumer, serInstanceID string) (book.Offer, bool) {
	t := o.g.handler.Table.Load()
	i := t.Instance(serInstanceID)
	if i == nil || !mayKnow(t.App(consumer), i.Service) {
		return book.Offer{}, false
	}
	return book.Offer{Owner: i.Owner, SerName: i.Service}, true
}

// mayKnow reports whether a consumer may know of a service: an app that declared services may know of those only.
func mayKnow(app *table.App, serName string) bool { return app == nil || app.Declares(serName) }
