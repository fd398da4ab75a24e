package blackbox

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/etcdtest"
	"github.com/openmep/mep/tests/harness"
)

const govern = "/mep/service_govern/v1"

func TestWhatEdgeGallerysMEPMAsksAboutTheUseOfServices(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	p := harness.StartMepserver(t, etcd.Endpoint())
	m, producer, consumer := mepmOf(t, p), newApp(p.Client(t)), newApp(p.Client(t))
	svc := producer.register(own("cam"))
	producer.register(minimal("cam"))
	producer.register(full("rni"))
	consumer.subscribe("http://127.0.0.1:1/", object{"serInstanceIds": []any{svc.id}})

	wrapped := func(path string) any {
		answer := m.Get(govern+path, asTheirs).Is(200).Object()
		require.InDelta(t, 0, answer["retCode"], 0)
		require.Equal(t, []any{"", ""}, []any{answer["message"], answer["params"]})
		return answer["data"]
	}
	require.Len(t, wrapped("/services"), 3)
	same(t, object{
		"subscribeNum":       object{"appSubscribeNum": 1, "serviceSubscribedNum": 1},
		"subscribeRelations": []any{object{"subscribeAppId": consumer.id, "serviceList": []any{svc.id}}},
	}, wrapped("/subscribe_statistic"))

	calls := state.CallStatistics{Pairs: []state.CallPair{
		{Service: "cam", Consumer: consumer.id, Buckets: []state.CallBucket{{Minute: 1, Calls: 5}, {Minute: 2, Calls: 6}}},
		{Service: state.ServiceDiscovery, Consumer: consumer.id, Buckets: []state.CallBucket{{Minute: 1, Calls: 7}}},
	}}
	packed, err := calls.Pack()
	require.NoError(t, err)
	value, err := state.Encode(packed)
	require.NoError(t, err)
	yesterday := time.Now().UTC().Truncate(24 * time.Hour).Add(-time.Hour)
	_, err = etcd.Client(t).Put(t.Context(), state.StatisticsKey(yesterday, "gateway", 0), value)
	require.NoError(t, err)
	entry := func(name string, calls int) map[string]any {
		return map[string]any{"name": name, "desc": "", "callTimes": []any{0, calls, 0, 0, 0, 0, 0}}
	}
	want := map[string]any{
		"appServices": []any{entry("cam", 11), entry("rni", 0)},
		"mepServices": []any{entry("serviceRegister", 0), entry("serviceDiscovery", 7)},
	}
	harness.Eventually(t, "the calls are counted", func() error {
		if got := wrapped("/kong_log"); fmt.Sprint(got) != fmt.Sprint(want) {
			return fmt.Errorf("they are %v, not %v", got, want)
		}
		return nil
	})

	for _, path := range []string{"/kong_log", "/subscribe_statistic", "/services"} {
		m.Get(govern + path + "?x=1").Problem(400)
		m.Head(govern + path).Is(200)
		m.Post(govern+path, object{}).Problem(405)
		consumer.Get(govern + path).Problem(404) // not at Mp1
	}
}
