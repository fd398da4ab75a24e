package client_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/client"
	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/problem"
)

const (
	mm5Root = "/mm5/v1"
	opID    = "30431178-c48b-42b6-8d21-bddf5c538eb4"
)

// newManager connects a manager to a platform without a network.
func newManager(t *testing.T, p http.RoundTripper, opts ...client.Option) *client.Manager {
	t.Helper()
	m, err := client.NewManager("http://mep.example", append([]client.Option{
		client.WithHTTPClient(&http.Client{Transport: p, Timeout: client.DefaultTimeout}),
	}, opts...)...)
	require.NoError(t, err)
	return m
}

// begun returns the response to a request that begins the operation.
func begun() func(http.ResponseWriter) {
	return answer(202, "", "Location", "http://mep.example"+mm5Root+"/app_lcm_op_occs/"+opID)
}

// occurrence returns the response to a poll of the operation.
func occurrence(state, more string) func(http.ResponseWriter) {
	return answer(200, `{"id":"`+opID+`","appInstanceId":"`+appID+`","lcmOperation":"CONFIGURE","operationState":"`+state+`","percentage":10,`+
		`"startTime":"2026-11-22T23:26:02.359825399Z","stateEnteredTime":"2026-11-22T23:26:02.359825399Z"`+more+`}`)
}

// wants returns a test that call begins the expected operation.
func wants(call func(context.Context, *client.Manager) (string, error)) func(context.Context, *client.Manager) error {
	return func(ctx context.Context, m *client.Manager) error {
		id, err := call(ctx, m)
		if err == nil && id != opID {
			return errors.New("the operation is " + id)
		}
		return err
	}
}

func TestRequestsOfAManagerHaveTheirForm(t *testing.T) {
	app := mm5Root + "/app_instances/" + appID
	video := mm5.ConfigPlatformForAppRequest{
		AppName:    "video",
		AppDNSRule: []mp1.DNSRule{{DNSRuleID: "d1", DomainName: "video.example", IPAddressType: mp1.IPv4, IPAddress: "192.0.2.1"}},
	}
	const sent = `{"appName":"video","appDNSRule":[{"dnsRuleId":"d1","domainName":"video.example","ipAddressType":"IP_V4","ipAddress":"192.0.2.1","state":"ACTIVE"}]}`
	tests := map[string]struct {
		call         func(context.Context, *client.Manager) error
		answer       func(http.ResponseWriter)
		method, path string
		body         string
	}{
		"configure": {
			wants(func(ctx context.Context, m *client.Manager) (string, error) { return m.Configure(ctx, appID, video) }),
			begun(), "PUT", app, sent,
		},
		"dry run": {
			func(ctx context.Context, m *client.Manager) error {
				diff, err := m.DryRun(ctx, appID, video)
				require.Equal(t, []string{"d1"}, diff.DNSRules.Added)
				return err
			},
			answer(200, `{"appInstanceId":"`+appID+`","changed":true,"creates":true,"dnsRules":{"added":["d1"]},"members":["appName"]}`),
			"PUT", app + "?dryRun=true", sent,
		},
		"configuration": {
			func(ctx context.Context, m *client.Manager) error {
				cfg, err := m.Configuration(ctx, appID)
				require.Equal(t, "video", cfg.Info.AppName)
				require.EqualValues(t, 3, cfg.Info.Generation)
				require.Equal(t, `"3-7"`, cfg.ETag)
				return err
			},
			answer(200, `{"appName":"video","appInstanceId":"`+appID+`","generation":3}`, "ETag", `"3-7"`), "GET", app, "",
		},
		"unconfigure": {
			wants(func(ctx context.Context, m *client.Manager) (string, error) { return m.Unconfigure(ctx, appID) }),
			begun(), "DELETE", app, "",
		},
		"start": {
			wants(func(ctx context.Context, m *client.Manager) (string, error) { return m.Start(ctx, appID) }),
			begun(), "POST", app + "/operate", `{"changeStateTo":"STARTED"}`,
		},
		"stop": {
			wants(func(ctx context.Context, m *client.Manager) (string, error) { return m.Stop(ctx, appID) }),
			begun(), "POST", app + "/operate", `{"changeStateTo":"STOPPED","stopType":"FORCEFUL"}`,
		},
		"graceful stop": {
			wants(func(ctx context.Context, m *client.Manager) (string, error) {
				return m.Stop(ctx, appID, client.Graceful(1500*time.Millisecond))
			}),
			begun(), "POST", app + "/operate", `{"changeStateTo":"STOPPED","stopType":"GRACEFUL","gracefulStopTimeout":2}`,
		},
		"terminate": {
			wants(func(ctx context.Context, m *client.Manager) (string, error) { return m.Terminate(ctx, appID) }),
			begun(), "POST", app + "/terminate", `{"terminationType":"FORCEFUL"}`,
		},
		"graceful termination": {
			wants(func(ctx context.Context, m *client.Manager) (string, error) {
				return m.Terminate(ctx, appID, client.Graceful(0))
			}),
			begun(), "POST", app + "/terminate", `{"terminationType":"GRACEFUL"}`,
		},
		"operation": {
			func(ctx context.Context, m *client.Manager) error {
				op, err := m.Operation(ctx, opID)
				require.Equal(t, mm5.OperationProcessing, op.OperationState)
				return err
			},
			occurrence("PROCESSING", ""), "GET", mm5Root + "/app_lcm_op_occs/" + opID, "",
		},
		"operations": {
			func(ctx context.Context, m *client.Manager) error { _, err := m.Operations(ctx, appID); return err },
			answer(200, "[]"), "GET", mm5Root + "/app_lcm_op_occs?app_instance_id=" + appID, "",
		},
		"all operations": {
			func(ctx context.Context, m *client.Manager) error { _, err := m.Operations(ctx, ""); return err },
			answer(200, "[]"), "GET", mm5Root + "/app_lcm_op_occs", "",
		},
		"instances": {
			func(ctx context.Context, m *client.Manager) error {
				list, err := m.Instances(ctx, mm5.LifecycleStarted)
				require.Equal(t, mm5.LifecycleStarted, list[0].Lifecycle)
				return err
			},
			answer(200, `[{"appInstanceId":"`+appID+`","lifecycle":"STARTED"}]`), "GET", mm5Root + "/app_instances?lifecycle=STARTED", "",
		},
		"all instances": {
			func(ctx context.Context, m *client.Manager) error { _, err := m.Instances(ctx, ""); return err },
			answer(200, "[]"), "GET", mm5Root + "/app_instances", "",
		},
		"instance": {
			func(ctx context.Context, m *client.Manager) error {
				v, err := m.Instance(ctx, appID)
				require.Equal(t, mm5.RuleFailed, v.Rules[0].Result)
				return err
			},
			answer(200, `{"lifecycle":"STARTED","rules":[{"kind":"DNS","ruleId":"d1","result":"FAILED","reason":"no"}]}`), "GET", app + "/status", "",
		},
		"capabilities": {
			func(ctx context.Context, m *client.Manager) error {
				v, err := m.Capabilities(ctx)
				require.Equal(t, 63, v.Limits.RuleIDLength)
				return err
			},
			answer(200, `{"version":"1","limits":{"trafficRules":64,"dnsRules":128,"trafficFilters":16,"ruleIdLength":63}}`), "GET", mm5Root + "/capabilities", "",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := &platform{answers: []func(http.ResponseWriter){tt.answer}}
			require.NoError(t, tt.call(t.Context(), newManager(t, p)))
			require.Len(t, p.asked, 1)
			require.Equal(t, tt.method, p.asked[0].method)
			require.Equal(t, tt.path, p.asked[0].target)
			require.Equal(t, tt.body, p.asked[0].body)
			require.Equal(t, tt.body != "", p.asked[0].header.Get("Content-Type") != "")
		})
	}
	require.Empty(t, video.AppDNSRule[0].State, "the caller's configuration stays as it is")
}

func TestAManagerIsRefused(t *testing.T) {
	for _, call := range []func(context.Context, *client.Manager) error{
		func(ctx context.Context, m *client.Manager) error { _, err := m.Start(ctx, appID); return err },
		func(ctx context.Context, m *client.Manager) error {
			_, err := m.DryRun(ctx, appID, mm5.ConfigPlatformForAppRequest{})
			return err
		},
		func(ctx context.Context, m *client.Manager) error { _, err := m.Configuration(ctx, appID); return err },
		func(ctx context.Context, m *client.Manager) error { _, err := m.Operation(ctx, opID); return err },
		func(ctx context.Context, m *client.Manager) error { _, err := m.Instance(ctx, appID); return err },
		func(ctx context.Context, m *client.Manager) error { _, err := m.Capabilities(ctx); return err },
	} {
		p := &platform{answers: []func(http.ResponseWriter){refusal(409)}}
		require.True(t, client.IsConflict(call(t.Context(), newManager(t, p))))
	}
}

func TestAnOperationHasAPlace(t *testing.T) {
	p := &platform{answers: []func(http.ResponseWriter){answer(202, "")}}
	_, err := newManager(t, p).Start(t.Context(), appID)
	require.ErrorContains(t, err, "which operation")
}

func TestAManagerNeedsAPlatform(t *testing.T) {
	_, err := client.NewManager("mep.example:8089")
	require.ErrorContains(t, err, "base URL of the platform")
}

func TestWhatAManagerAsksForIsRepeatedWhereThatIsSafe(t *testing.T) {
	none := mm5.ConfigPlatformForAppRequest{}
	tests := map[string]struct {
		call     func(context.Context, *client.Manager) error
		attempts int
	}{
		"configure": {func(ctx context.Context, m *client.Manager) error {
			_, err := m.Configure(ctx, appID, none)
			return err
		}, 4},
		"configure on what was read": {func(ctx context.Context, m *client.Manager) error {
			_, err := m.Configure(ctx, appID, none, client.IfMatch(`"1"`))
			return err
		}, 1},
		"dry run on what was read": {func(ctx context.Context, m *client.Manager) error {
			_, err := m.DryRun(ctx, appID, none, client.IfMatch(`"1"`))
			return err
		}, 4},
		"unconfigure": {func(ctx context.Context, m *client.Manager) error { _, err := m.Unconfigure(ctx, appID); return err }, 1},
		"start":       {func(ctx context.Context, m *client.Manager) error { _, err := m.Start(ctx, appID); return err }, 4},
		"stop":        {func(ctx context.Context, m *client.Manager) error { _, err := m.Stop(ctx, appID); return err }, 4},
		"terminate":   {func(ctx context.Context, m *client.Manager) error { _, err := m.Terminate(ctx, appID); return err }, 4},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &platform{answers: []func(http.ResponseWriter){refusal(503, "Retry-After", "1")}}
				require.Error(t, tt.call(t.Context(), newManager(t, p)))
				require.Len(t, p.asked, tt.attempts)
			})
		})
	}
}

func TestAnOperationIsWaitedFor(t *testing.T) {
	ended := `,"endTime":"2026-11-22T23:26:03Z"`
	tests := map[string]struct {
		answers []func(http.ResponseWriter)
		check   func(*testing.T, *mm5.AppLcmOpOcc, error)
	}{
		"until it is completed": {
			[]func(http.ResponseWriter){occurrence("STARTING", ""), occurrence("PROCESSING", ""), occurrence("PROCESSING", ""), occurrence("COMPLETED", ended)},
			func(t *testing.T, op *mm5.AppLcmOpOcc, err error) {
				require.NoError(t, err)
				require.Equal(t, mm5.OperationCompleted, op.OperationState)
				require.NotNil(t, op.EndTime)
			},
		},
		"until it has failed": {
			[]func(http.ResponseWriter){occurrence("PROCESSING", ""), occurrence("FAILED", ended+`,"detail":"no such interface",`+
				`"ruleResults":[{"kind":"TRAFFIC","ruleId":"t1","result":"FAILED","reason":"no such interface","reconciler":"dataplane"}]`)},
			func(t *testing.T, op *mm5.AppLcmOpOcc, err error) {
				failed, ok := errors.AsType[*client.OperationError](err)
				require.True(t, ok)
				require.Same(t, op, failed.Operation)
				require.Equal(t, "t1", failed.Operation.RuleResults[0].RuleID)
				require.EqualError(t, err, "operation "+opID+" (CONFIGURE of "+appID+") failed: no such interface")
			},
		},
		"while the platform is not well": {
			[]func(http.ResponseWriter){
				refusal(500), refusal(503), refusal(503), refusal(503), refusal(503), refusal(401), answer(502, "<html>", "Content-Type", "text/html"),
				occurrence("COMPLETED", ended),
			},
			func(t *testing.T, _ *mm5.AppLcmOpOcc, err error) { require.NoError(t, err) },
		},
		"unless there is none": {
			[]func(http.ResponseWriter){occurrence("PROCESSING", ""), refusal(404)},
			func(t *testing.T, op *mm5.AppLcmOpOcc, err error) {
				require.True(t, client.IsNotFound(err))
				require.Equal(t, mm5.OperationProcessing, op.OperationState, "what was seen last")
			},
		},
		"until there is no more time": {
			[]func(http.ResponseWriter){occurrence("PROCESSING", "")},
			func(t *testing.T, op *mm5.AppLcmOpOcc, err error) {
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.ErrorContains(t, err, "has not ended")
				require.Equal(t, mm5.OperationProcessing, op.OperationState)
			},
		},
		"until there is no more time, with the reason": {
			[]func(http.ResponseWriter){refusal(500)},
			func(t *testing.T, op *mm5.AppLcmOpOcc, err error) {
				require.ErrorIs(t, err, context.DeadlineExceeded)
				doc, ok := errors.AsType[*problem.Details](err)
				require.True(t, ok)
				require.Equal(t, 500, doc.Status)
				require.Nil(t, op)
			},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &platform{answers: tt.answers}
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
				defer cancel()
				op, err := newManager(t, p).WaitOperation(ctx, opID)
				tt.check(t, op, err)
				for i := 1; i < len(p.asked); i++ {
					require.LessOrEqual(t, p.asked[i].at.Sub(p.asked[i-1].at), 10*time.Second)
				}
			})
		})
	}
	_, err := newManager(t, &platform{}).WaitOperation(t.Context(), "..")
	require.ErrorContains(t, err, "is no id")
}
