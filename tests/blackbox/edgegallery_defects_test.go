package blackbox

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

// The defects of EdgeGallery's MEP in what this platform has an answer to at Mm5 and in application support. D-1 to D-14, D-30
// and D-33 are about services and notifications, D-19, D-35 to D-37 about credentials; the tests of those show them.
func TestDefectsOfEdgeGalleryThatThisPlatformDoesNotHave(t *testing.T) {
	t.Parallel()
	c := harness.NewController(t)
	p := harness.Start(t, c.Option())
	cb := harness.NewSubscriber(t)
	configured := func(t *testing.T, cfg object) (app, mepm) {
		t.Helper()
		a, m := newApp(p.Client(t)), mepmOf(t, p)
		succeeded(t, apprulemgr(m, "POST", a.id, cfg))
		return a, m
	}
	t.Run("D-12: a subscription is read as it was made", func(t *testing.T) {
		t.Parallel()
		a := newApp(p.Client(t))
		sub := a.mind("http://10.0.0.1/")
		require.Equal(t, p.URL("mp1")+sub, self(a.Get(sub).Is(200).Object()))
	})
	t.Run("D-15: subscriptions go with the app, whether their call-back answers or not", func(t *testing.T) {
		t.Parallel()
		a, m := configured(t, appDConfig("d15"))
		a.subscribe("http://127.0.0.1:9/", nil)
		a.mind("http://127.0.0.1:9/") // where nobody is
		m.done(m.terminate(a.id, graceful(1)))
		require.Empty(t, links(a))
		same(t, []any{}, a.Get(a.endings()).Object()["_links"].(object)["subscriptions"])
	})
	t.Run("D-16: what is no confirmation confirms nothing", func(t *testing.T) {
		t.Parallel()
		a, m := configured(t, appDConfig("d16"))
		op := m.terminate(a.id, graceful(3600))
		for _, body := range []string{"{", "", "[]", "{}", `{"operationAction":5}`, `{"operationAction":"TERMINATE"}`, `{"OperationAction":"TERMINATING"}`, `"TERMINATING"`} {
			a.Post(a.confirmation(), body).Problem(400)
		}
		require.Equal(t, "PROCESSING", m.Get(op).Object()["operationState"])
		a.confirm("TERMINATING").Is(204)
		m.done(op)
	})
	t.Run("D-17: the entity-tag of a traffic rule is good for its next change", func(t *testing.T) {
		t.Parallel()
		a, _ := configured(t, appDConfig("d17"))
		tag := a.Get(a.trafficRule("t1")).ETag()
		for i := range 3 {
			tag = a.Put(a.trafficRule("t1"), but(traffic("t1"), "priority", 10+i, "state", "ACTIVE"), harness.Header("If-Match", tag)).Is(200).ETag()
		}
	})
	t.Run("D-18: a DNS rule is changed wherever its server is", func(t *testing.T) {
		t.Parallel()
		a, _ := configured(t, appDConfig("d18"))
		a.Put(a.dnsRule("d1"), object{"state": "INACTIVE"}).Is(200)
		c.AwaitRules(t, harness.DNS, a.id)
	})
	t.Run("D-20 to D-22: a task that was broken off or failed locks nothing", func(t *testing.T) {
		t.Parallel()
		a, m := configured(t, appDConfig("d20"))
		for range 5 {
			m.Put(appd(a.id), appDConfig("d20"), asTheirs).Is(200)
			m.Put(appd(a.id), but(appDConfig("d20"), "appTrafficRule", []any{}), asTheirs).Is(200) // while the last one may be under way
		}
		succeeded(t, apprulemgr(m, "DELETE", a.id, nil))
	})
	t.Run("D-23: a configuration without rules can be made, replaced, removed and terminated", func(t *testing.T) {
		t.Parallel()
		empty := object{"appName": "d23", "appSupportMp1": false, "appTrafficRule": []any{}, "appDNSRule": nil}
		a, m := configured(t, appDConfig("d23"))
		succeeded(t, apprulemgr(m, "PUT", a.id, empty))
		c.AwaitRules(t, harness.Traffic, a.id)
		same(t, object{"appName": "d23", "appSupportMp1": false, "appTrafficRule": []any{}, "appDNSRule": []any{}}, m.Get(appd(a.id)).Is(200).Object())
		require.Empty(t, a.states())
		succeeded(t, apprulemgr(m, "DELETE", a.id, nil))
		b, m := configured(t, empty)
		m.Delete(termination(b.id), asTheirs).Is(200)
		require.Empty(t, m.state(b.id))
	})
	t.Run("D-24: the name of a DNS rule changes, and a rule that is INACTIVE", func(t *testing.T) {
		t.Parallel()
		cfg := but(appDConfig("d24"), "appTrafficRule[0].state", "INACTIVE")
		a, m := configured(t, cfg)
		succeeded(t, apprulemgr(m, "PUT", a.id, but(cfg, "appDNSRule[0].domainName", "other.example", "appTrafficRule[0].priority", 77)))
		c.AwaitRules(t, harness.DNS, a.id, "d1")
		require.Equal(t, "other.example", c.Rule(harness.DNS, a.id, "d1")["domainName"])
		c.AwaitRules(t, harness.Traffic, a.id)
	})
	t.Run("D-25: an address is of its family, and a TTL of 0 none", func(t *testing.T) {
		t.Parallel()
		a, m := configured(t, but(appDConfig("d25"), "appDNSRule[0].ttl", 0, "appDNSRule[0].ipAddressType", "IPv4"))
		require.Nil(t, c.Rule(harness.DNS, a.id, "d1")["ttl"])
		require.Equal(t, "IP_V4", c.Rule(harness.DNS, a.id, "d1")["ipAddressType"])
		m.Put(appd(a.id), but(appDConfig("d25"), "appDNSRule[0].ipAddress", "2001:db8::1"), asTheirs).Problem(400)
	})
	t.Run("D-26: one name has addresses of both families", func(t *testing.T) {
		t.Parallel()
		two := []any{
			but(dns("a"), "domainName", "d26.example"),
			but(dns("aaaa"), "domainName", "d26.example", "ipAddressType", "IP_V6", "ipAddress", "2001:db8::1"),
			but(dns("a2"), "domainName", "d26.example", "ipAddress", "10.0.0.2"),
		}
		a, _ := configured(t, but(appDConfig("d26"), "appDNSRule", two))
		c.AwaitRules(t, harness.DNS, a.id, "a", "aaaa", "a2")
		b, _ := configured(t, but(appDConfig("d26-2"), "appDNSRule", two)) // and another app, too
		c.AwaitRules(t, harness.DNS, b.id, "a", "aaaa", "a2")
	})
	t.Run("D-27: the destination reaches the data plane", func(t *testing.T) {
		t.Parallel()
		dst := []any{object{"interfaceType": "MAC", "dstMacAddress": "00:00:5e:00:53:02"}}
		a, _ := configured(t, but(appDConfig("d27"), "appTrafficRule[0].action", "FORWARD_AS_IS", "appTrafficRule[0].dstInterface", dst))
		same(t, dst, c.Rule(harness.Traffic, a.id, "t1")["dstInterface"])
	})
	t.Run("D-29: a task without rules has a progress", func(t *testing.T) {
		t.Parallel()
		a, m := configured(t, object{"appName": "d29"})
		for _, op := range m.Get(mm5 + "/app_lcm_op_occs?app_instance_id=" + a.id).Is(200).Array() {
			require.EqualValues(t, 100, op["percentage"])
		}
	})
	t.Run("S-8: an app confirms for itself, and its id is that of the path", func(t *testing.T) {
		t.Parallel()
		a, m := configured(t, appDConfig("s8"))
		a.mind(cb.URL("/s8"))
		op := m.terminate(a.id, graceful(3600))
		other := newApp(p.Client(t))
		other.confirm("TERMINATING").Problem(409)
		require.Equal(t, "PROCESSING", m.Get(op).Object()["operationState"])
		a.confirm("TERMINATING").Is(204)
		m.done(op)
	})
	t.Run("the same name is no reason to refuse an app", func(t *testing.T) {
		t.Parallel()
		for i := range 2 {
			configured(t, but(appDConfig("same"), "appDNSRule[0].domainName", fmt.Sprintf("same%d.example", i)))
		}
	})
}
