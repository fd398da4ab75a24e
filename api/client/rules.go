package client

import (
	"context"
	"net/http"

	"github.com/openmep/mep/api/mp1"
)

// TrafficRules lists the app's traffic rules (MEC 011 7.2.7.3.1). They are INACTIVE while the app is not running.
func (a *App) TrafficRules(ctx context.Context) ([]mp1.TrafficRule, error) {
	return list[mp1.TrafficRule](ctx, a.c, a.support(http.MethodGet, "traffic_rules"))
}

// TrafficRule reads one of the app's traffic rules (MEC 011 7.2.8.3.1).
func (a *App) TrafficRule(ctx context.Context, id string) (*Tagged[mp1.TrafficRule], error) {
	return tagged[mp1.TrafficRule](ctx, a.c, a.support(http.MethodGet, "traffic_rules", id))
}

// ChangeTrafficRule replaces one of the app's traffic rules with rule as a whole (MEC 011 7.2.8.3.2). The id in rule may be
// omitted. An app cannot create rules: IsNotFound holds for the error when the manager has not configured the rule.
func (a *App) ChangeTrafficRule(ctx context.Context, id string, rule mp1.TrafficRule, pre ...Precondition) (*Tagged[mp1.TrafficRule], error) {
	r := a.support(http.MethodPut, "traffic_rules", id)
	r.body = rule
	r.apply(pre)
	return tagged[mp1.TrafficRule](ctx, a.c, r)
}

// DNSRules lists the app's DNS rules (MEC 011 7.2.9.3.1). They are INACTIVE while the app is not running.
func (a *App) DNSRules(ctx context.Context) ([]mp1.DNSRule, error) {
	return list[mp1.DNSRule](ctx, a.c, a.support(http.MethodGet, "dns_rules"))
}

// list sends a request whose response is an array.
func list[T any](ctx context.Context, c *Client, r request) ([]T, error) {
	var elements []T
	_, err := c.do(ctx, r, &elements)
	return elements, err
}

// DNSRule reads one of the app's DNS rules (MEC 011 7.2.10.3.1).
func (a *App) DNSRule(ctx context.Context, id string) (*Tagged[mp1.DNSRule], error) {
	return tagged[mp1.DNSRule](ctx, a.c, a.support(http.MethodGet, "dns_rules", id))
}

// ChangeDNSRule changes the state of one of the app's DNS rules and any other members that are set in update (MEC 011
// 7.2.10.3.2). IsNotFound holds for the error when the manager has not configured the rule.
func (a *App) ChangeDNSRule(ctx context.Context, id string, update mp1.DNSRuleUpdate, pre ...Precondition) (*Tagged[mp1.DNSRule], error) {
	r := a.support(http.MethodPut, "dns_rules", id)
	r.body = update
	r.apply(pre)
	return tagged[mp1.DNSRule](ctx, a.c, r)
}
