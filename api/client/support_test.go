package client_test

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/client"
	"github.com/openmep/mep/api/mp1"
)

const (
	supportRoot = "/mec_app_support/v2"

	trafficRule = `{"trafficRuleId":"t 1/2","filterType":"FLOW","priority":1,"trafficFilter":[{"srcAddress":["10.0.0.0/8"],"dstPort":["80","8000-8100"],` +
		`"protocol":["tcp"],"qCI":3}],"action":"FORWARD_DECAPSULATED","dstInterface":[{"interfaceType":"IP","dstIpAddress":"192.0.2.1"}],"state":"ACTIVE"}`
	dnsRule       = `{"dnsRuleId":"d1","domainName":"*.video.example","ipAddressType":"IP_V4","ipAddress":"192.0.2.1","ttl":60,"state":"INACTIVE"}`
	terminationID = "49e422ac-61cc-4997-9cde-8ea61c3d27f5"
	termination   = `{"subscriptionType":"AppTerminationNotificationSubscription","callbackReference":"http://a/b","_links":{"self":{"href":` +
		`"http://mep.example` + supportRoot + `/applications/` + appID + `/subscriptions/` + terminationID + `"}},"appInstanceId":"` + appID + `"}`
	registered = `{"appName":"video","appInstanceId":"` + appID + `","endpoint":{"uris":["http://192.0.2.1/"]}}`
)

func TestRequestsOfApplicationSupportHaveTheFormOfTheStandard(t *testing.T) {
	app := supportRoot + "/applications/" + appID
	here := "http://mep.example" + app + "/subscriptions/" + terminationID
	video := mp1.AppInfo{AppName: "video", Endpoint: &mp1.EndPointInfo{URIs: []string{"http://192.0.2.1/"}}}
	tests := map[string]struct {
		call         func(context.Context, *client.Client) error
		answer       func(http.ResponseWriter)
		method, path string
		body         string
	}{
		"ready": {
			func(ctx context.Context, c *client.Client) error { return c.App(appID).Ready(ctx) },
			answer(204, ""), "POST", app + "/confirm_ready", `{"indication":"READY"}`,
		},
		"confirm termination": {
			func(ctx context.Context, c *client.Client) error {
				return c.App(appID).ConfirmTermination(ctx, mp1.ActionStopping)
			},
			answer(204, ""), "POST", app + "/confirm_termination", `{"operationAction":"STOPPING"}`,
		},
		"subscribe": {
			func(ctx context.Context, c *client.Client) error {
				sub, err := c.App(appID).SubscribeTermination(ctx, "http://a/b")
				require.Equal(t, terminationID, sub.ID)
				require.Equal(t, here, sub.Location)
				require.Equal(t, `"9"`, sub.ETag)
				return err
			},
			answer(201, termination, "Location", here, "ETag", `"9"`), "POST", app + "/subscriptions",
			`{"subscriptionType":"AppTerminationNotificationSubscription","callbackReference":"http://a/b","appInstanceId":"` + appID + `"}`,
		},
		"subscriptions": {
			func(ctx context.Context, c *client.Client) error {
				list, err := c.App(appID).TerminationSubscriptions(ctx)
				require.Equal(t, terminationID, client.IDOf(list[0].Href))
				return err
			},
			answer(200, `{"_links":{"self":{"href":"http://mep.example/s"},"subscriptions":[{"href":"`+here+`"}]}}`), "GET", app + "/subscriptions", "",
		},
		"subscription": {
			func(ctx context.Context, c *client.Client) error {
				sub, err := c.App(appID).TerminationSubscription(ctx, terminationID)
				require.Equal(t, here, sub.Location, "from the links when there is no header")
				require.Equal(t, "http://a/b", sub.Info.CallbackReference)
				return err
			},
			answer(200, termination), "GET", app + "/subscriptions/" + terminationID, "",
		},
		"unsubscribe": {
			func(ctx context.Context, c *client.Client) error {
				return c.App(appID).UnsubscribeTermination(ctx, terminationID)
			},
			answer(204, ""), "DELETE", app + "/subscriptions/" + terminationID, "",
		},
		"traffic rules": {
			func(ctx context.Context, c *client.Client) error {
				list, err := c.App(appID).TrafficRules(ctx)
				require.Equal(t, []string{"80", "8000-8100"}, list[0].TrafficFilter[0].DstPort)
				return err
			},
			answer(200, "["+trafficRule+"]"), "GET", app + "/traffic_rules", "",
		},
		"traffic rule": {
			func(ctx context.Context, c *client.Client) error {
				rule, err := c.App(appID).TrafficRule(ctx, "t 1/2")
				require.Equal(t, mp1.ActionForwardDecapsulated, rule.Info.Action)
				require.Equal(t, `"r"`, rule.ETag)
				return err
			},
			answer(200, trafficRule, "ETag", `"r"`), "GET", app + "/traffic_rules/t%201%2F2", "",
		},
		"DNS rules": {
			func(ctx context.Context, c *client.Client) error {
				list, err := c.App(appID).DNSRules(ctx)
				require.Len(t, list, 1)
				return err
			},
			answer(200, "["+dnsRule+"]"), "GET", app + "/dns_rules", "",
		},
		"DNS rule": {
			func(ctx context.Context, c *client.Client) error {
				rule, err := c.App(appID).DNSRule(ctx, "d1")
				require.EqualValues(t, 60, *rule.Info.TTL)
				return err
			},
			answer(200, dnsRule), "GET", app + "/dns_rules/d1", "",
		},
		"change of a DNS rule": {
			func(ctx context.Context, c *client.Client) error {
				rule, err := c.App(appID).ChangeDNSRule(ctx, "d1", mp1.DNSRuleUpdate{State: mp1.RuleInactive})
				require.Equal(t, mp1.RuleInactive, rule.Info.State)
				return err
			},
			answer(200, dnsRule), "PUT", app + "/dns_rules/d1", `{"state":"INACTIVE"}`,
		},
		"time": {
			func(ctx context.Context, c *client.Client) error {
				now, err := c.CurrentTime(ctx)
				require.Equal(t, mp1.CurrentTime{Seconds: 5, NanoSeconds: 7, TimeSourceStatus: mp1.TimeTraceable}, now)
				return err
			},
			answer(200, `{"seconds":5,"nanoSeconds":7,"timeSourceStatus":"TRACEABLE"}`), "GET", supportRoot + "/timing/current_time", "",
		},
		"time services": {
			func(ctx context.Context, c *client.Client) error {
				caps, err := c.TimingCaps(ctx)
				require.Equal(t, "ntp.example", caps.NTPServers[0].NTPServerAddr)
				return err
			},
			answer(200, `{"timeStamp":{"seconds":5,"nanoSeconds":7},"ntpServers":[{"ntpServerAddr":"ntp.example"}]}`), "GET", supportRoot + "/timing/timing_caps", "",
		},
		"registration of an app": {
			func(ctx context.Context, c *client.Client) error {
				reg, err := c.RegisterApp(ctx, video)
				require.Equal(t, appID, reg.Info.AppInstanceID)
				require.Equal(t, `"g"`, reg.ETag)
				return err
			},
			answer(201, registered, "ETag", `"g"`), "POST", supportRoot + "/registrations", `{"appName":"video","endpoint":{"uris":["http://192.0.2.1/"]}}`,
		},
		"registration": {
			func(ctx context.Context, c *client.Client) error {
				_, err := c.App(appID).Registration(ctx)
				return err
			},
			answer(200, registered), "GET", supportRoot + "/registrations/" + appID, "",
		},
		"change of a registration": {
			func(ctx context.Context, c *client.Client) error {
				etag, err := c.App(appID).UpdateRegistration(ctx, video)
				require.Equal(t, `"h"`, etag)
				return err
			},
			answer(204, "", "ETag", `"h"`), "PUT", supportRoot + "/registrations/" + appID, `{"appName":"video","endpoint":{"uris":["http://192.0.2.1/"]}}`,
		},
		"end of a registration": {
			func(ctx context.Context, c *client.Client) error { return c.App(appID).Deregister(ctx) },
			answer(204, ""), "DELETE", supportRoot + "/registrations/" + appID, "",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := &platform{answers: []func(http.ResponseWriter){tt.answer}}
			require.NoError(t, tt.call(t.Context(), newClient(t, p)))
			require.Len(t, p.asked, 1)
			require.Equal(t, tt.method, p.asked[0].method)
			require.Equal(t, tt.path, p.asked[0].target)
			require.Equal(t, tt.body, p.asked[0].body)
		})
	}
}

func TestWhatWasReadOfARuleIsSentBackWithChanges(t *testing.T) {
	p := &platform{answers: []func(http.ResponseWriter){
		answer(200, trafficRule, "ETag", `"1"`), answer(200, trafficRule, "ETag", `"2"`), refusal(412),
	}}
	app := newClient(t, p).App(appID)
	rule, err := app.TrafficRule(t.Context(), "t 1/2")
	require.NoError(t, err)
	changed, err := app.ChangeTrafficRule(t.Context(), "t 1/2", rule.Info, client.IfMatch(rule.ETag))
	require.NoError(t, err)
	require.Equal(t, `"2"`, changed.ETag)
	require.JSONEq(t, trafficRule, p.asked[1].body)
	require.Equal(t, `"1"`, p.asked[1].header.Get("If-Match"))
	_, err = app.ChangeDNSRule(t.Context(), "d1", mp1.DNSRuleUpdate{State: mp1.RuleActive}, client.IfMatch(`"0"`))
	require.True(t, client.IsPreconditionFailed(err))
	require.Equal(t, `"0"`, p.asked[2].header.Get("If-Match"))
}

func TestReadyWaitsForTheConfigurationWhenAsked(t *testing.T) {
	early := refusal(409, "Retry-After", "1")
	tests := map[string]struct {
		answers  []func(http.ResponseWriter)
		opts     []client.ReadyOption
		attempts int
		status   int // of the error
	}{
		"not without being asked":       {[]func(http.ResponseWriter){early, answer(204, "")}, nil, 1, 409},
		"until there is one":            {[]func(http.ResponseWriter){early, early, early, answer(204, "")}, []client.ReadyOption{client.UntilConfigured()}, 4, 0},
		"also while the platform fails": {[]func(http.ResponseWriter){refusal(500), early, refusal(401), answer(204, "")}, []client.ReadyOption{client.UntilConfigured()}, 4, 0},
		"not for an app that is gone":   {[]func(http.ResponseWriter){early, refusal(404)}, []client.ReadyOption{client.UntilConfigured()}, 2, 404},
		"not for one of another":        {[]func(http.ResponseWriter){refusal(403)}, []client.ReadyOption{client.UntilConfigured()}, 1, 403},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &platform{answers: tt.answers}
				err := newClient(t, p).App(appID).Ready(t.Context(), tt.opts...)
				require.Len(t, p.asked, tt.attempts)
				if tt.status == 0 {
					require.NoError(t, err)
					return
				}
				var e *client.Error
				require.ErrorAs(t, err, &e)
				require.Equal(t, tt.status, e.Status())
			})
		})
	}
}

func TestReadyGivesUpWithItsContextAndSaysWhyItWasRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &platform{answers: []func(http.ResponseWriter){refusal(409, "Retry-After", "1")}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		err := newClient(t, p).App(appID).Ready(ctx, client.UntilConfigured())
		require.True(t, client.IsConflict(err))
		require.Equal(t, time.Minute, time.Since(start))
		require.Greater(t, len(p.asked), 6)
		for i := 1; i < len(p.asked); i++ {
			gap := p.asked[i].at.Sub(p.asked[i-1].at)
			require.GreaterOrEqual(t, gap, time.Second, "the platform asks for it")
			require.LessOrEqual(t, gap, 10*time.Second)
		}
	})
}

func TestReadyDoesNotRepeatWhatCannotBeSent(t *testing.T) {
	p := &platform{answers: []func(http.ResponseWriter){answer(204, "")}}
	require.ErrorContains(t, newClient(t, p).App("..").Ready(t.Context(), client.UntilConfigured()), "is no id")
	require.Empty(t, p.asked)
}

func TestAConfirmationIsRepeatedAndCountsOnce(t *testing.T) {
	unavailable := refusal(503, "Retry-After", "1")
	tests := map[string]struct {
		answers []func(http.ResponseWriter)
		holds   func(error) bool
	}{
		"the app was stopped by then":    {[]func(http.ResponseWriter){unavailable, refusal(409)}, isNil},
		"the app was terminated by then": {[]func(http.ResponseWriter){unavailable, refusal(404)}, isNil},
		"nothing was to be confirmed":    {[]func(http.ResponseWriter){refusal(409)}, client.IsConflict},
		"there is no such app":           {[]func(http.ResponseWriter){refusal(404)}, client.IsNotFound},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &platform{answers: tt.answers}
				err := newClient(t, p).App(appID).ConfirmTermination(t.Context(), mp1.ActionTerminating)
				require.True(t, tt.holds(err), "%v", err)
				require.Len(t, p.asked, len(tt.answers))
			})
		})
	}
}

func isNil(err error) bool { return err == nil }

func TestWhatMakesSomethingNewIsNotRepeated(t *testing.T) {
	for name, call := range map[string]func(context.Context, *client.Client) error{
		"registration": func(ctx context.Context, c *client.Client) error {
			_, err := c.RegisterApp(ctx, mp1.AppInfo{AppName: "video"})
			return err
		},
		"subscription": func(ctx context.Context, c *client.Client) error {
			_, err := c.App(appID).SubscribeTermination(ctx, "http://a/b")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := &platform{answers: []func(http.ResponseWriter){refusal(503, "Retry-After", "1")}}
			require.Error(t, call(t.Context(), newClient(t, p)))
			require.Len(t, p.asked, 1)
		})
	}
}

func TestATerminationSubscriptionHasAPlace(t *testing.T) {
	p := &platform{answers: []func(http.ResponseWriter){answer(201, `{}`)}}
	_, err := newClient(t, p).App(appID).SubscribeTermination(t.Context(), "http://a/b")
	require.ErrorContains(t, err, "where the subscription is")
}

func TestTheAppIsToldOfItsEndOnce(t *testing.T) {
	const notice = `{"notificationType":"AppTerminationNotification","operationAction":"TERMINATING","maxGracefulTimeout":60,"_links":{` +
		`"subscription":{"href":"http://mep.example/s/1"},"confirmTermination":{"href":"http://mep.example/c"}}}`
	var got []mp1.AppTerminationNotification
	h := client.TerminationHandler(func(_ context.Context, n mp1.AppTerminationNotification) error {
		got = append(got, n)
		return nil
	})
	require.Equal(t, 204, deliver(h, "n-1", notice))
	require.Equal(t, 204, deliver(h, "n-1", notice))
	require.Len(t, got, 1)
	require.Equal(t, mp1.ActionTerminating, got[0].OperationAction)
	require.EqualValues(t, 60, got[0].MaxGracefulTimeout)
	require.Equal(t, "http://mep.example/c", got[0].Links.ConfirmTermination.Href)
	require.Equal(t, 400, deliver(h, "n-2", notification), "that is for a NotificationHandler")
	require.Len(t, got, 1)
}
