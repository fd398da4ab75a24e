package blackbox

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

func TestAConfigurationIsRefusedAsAWhole(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	m, id := mepmOf(t, p), uuid.NewString()
	m.done(m.configure(id, configuration("before", 1, 1)))
	before := m.Get(instance(id)).ETag()
	good := configuration("x", 2, 2)
	good["appTrafficRule"].([]any)[1] = fullTraffic("t2")
	long := strings.Repeat("é", 64)
	const rule, name, filter, dst, tunnel = "appTrafficRule[1].", "appDNSRule[1].", "appTrafficRule[1].trafficFilter[0].", "appTrafficRule[1].dstInterface[1].", "appTrafficRule[1].dstInterface[0].tunnelInfo."
	for what, x := range map[string]struct {
		member string
		value  any
		about  string // what is named, the member when empty
		says   string // what the refusal repeats, besides
	}{
		"no id":                             {member: rule + "trafficRuleId", value: nil},
		"an empty id":                       {member: rule + "trafficRuleId", value: ""},
		"an id of 64 characters":            {member: rule + "trafficRuleId", value: long, says: "63"},
		"an id that is a dot":               {member: rule + "trafficRuleId", value: "."},
		"an id of two dots":                 {member: rule + "trafficRuleId", value: ".."},
		"an id with a new line":             {member: rule + "trafficRuleId", value: "a\nb", says: `a\nb`},
		"an id with what cannot be seen":    {member: rule + "trafficRuleId", value: "a\u200bb"},
		"an id twice":                       {member: rule + "trafficRuleId", value: "t1", says: "t1"},
		"a DNS id twice":                    {member: name + "dnsRuleId", value: "d1", says: "d1"},
		"a DNS id of 64 characters":         {member: name + "dnsRuleId", value: long},
		"no filter type":                    {member: rule + "filterType", value: nil},
		"an unknown filter type":            {member: rule + "filterType", value: "STREAM", says: "PACKET"},
		"no priority":                       {member: rule + "priority", value: nil},
		"a priority below 0":                {member: rule + "priority", value: -1, says: "-1"},
		"a priority over 255":               {member: rule + "priority", value: 256, says: "256"},
		"half a priority":                   {member: rule + "priority", value: 1.5},
		"a priority that is text":           {member: rule + "priority", value: "1"},
		"no filters":                        {member: rule + "trafficFilter", value: nil},
		"an empty list of filters":          {member: rule + "trafficFilter", value: []any{}},
		"no action":                         {member: rule + "action", value: nil},
		"an unknown action":                 {member: rule + "action", value: "REFLECT"},
		"the action of EdgeGallery":         {member: rule + "action", value: "FORWARD_AS_IS"},
		"an unknown state":                  {member: rule + "state", value: "SLEEPING"},
		"a forward to two":                  {member: rule + "action", value: "FORWARD_DECAPSULATED", about: rule + "dstInterface"},
		"three interfaces":                  {member: rule + "dstInterface", value: []any{object{}, object{}, object{}}},
		"an address that is none":           {member: filter + "srcAddress", value: []any{"10.0.0.1", "10.0.0.256"}, about: filter + "srcAddress[1]", says: "10.0.0.256"},
		"a name for an address":             {member: filter + "srcAddress", value: []any{"a.example"}, about: filter + "srcAddress[0]", says: "a.example"},
		"an address with leading zeros":     {member: filter + "srcAddress", value: []any{"010.0.0.1"}, about: filter + "srcAddress[0]", says: "010.0.0.1"},
		"an address with a zone":            {member: filter + "srcAddress", value: []any{"fe80::1%eth0"}, about: filter + "srcAddress[0]"},
		"IPv4 written as IPv6":              {member: filter + "srcAddress", value: []any{"::ffff:10.0.0.1"}, about: filter + "srcAddress[0]"},
		"an empty address":                  {member: filter + "srcAddress", value: []any{""}, about: filter + "srcAddress[0]"},
		"a prefix that is too long":         {member: filter + "srcAddress", value: []any{"10.0.0.0/33"}, about: filter + "srcAddress[0]", says: "10.0.0.0/33"},
		"an IPv6 prefix that is too long":   {member: filter + "srcAddress", value: []any{"2001:db8::/129"}, about: filter + "srcAddress[0]", says: "/129"},
		"a prefix with host bits":           {member: filter + "srcAddress", value: []any{"10.0.0.1/8"}, about: filter + "srcAddress[0]", says: "10.0.0.0/8"},
		"a mask with holes":                 {member: filter + "srcAddress", value: []any{"10.0.0.0/255.0.255.0"}, about: filter + "srcAddress[0]", says: "255.0.255.0"},
		"a range backwards":                 {member: filter + "dstAddress", value: []any{"10.0.0.9-10.0.0.1"}, about: filter + "dstAddress[0]", says: "10.0.0.9-10.0.0.1"},
		"a range from IPv4 to IPv6":         {member: filter + "dstAddress", value: []any{"10.0.0.9-2001:db8::1"}, about: filter + "dstAddress[0]"},
		"a range without an end":            {member: filter + "dstAddress", value: []any{"10.0.0.9-"}, about: filter + "dstAddress[0]"},
		"from IPv4 to IPv6":                 {member: filter + "dstAddress", value: []any{"2001:db8::1"}},
		"port 0":                            {member: filter + "srcPort", value: []any{"0"}, about: filter + "srcPort[0]", says: `"0"`},
		"a port over 65535":                 {member: filter + "srcPort", value: []any{"65536"}, about: filter + "srcPort[0]", says: "65536"},
		"a port that is a number":           {member: filter + "srcPort", value: []any{80}, about: filter + "srcPort[0]"},
		"a port with a sign":                {member: filter + "srcPort", value: []any{"+80"}, about: filter + "srcPort[0]"},
		"a range of ports backwards":        {member: filter + "dstPort", value: []any{"90-80"}, about: filter + "dstPort[0]", says: "90-80"},
		"half a range of ports":             {member: filter + "dstTunnelPort", value: []any{"80-"}, about: filter + "dstTunnelPort[0]"},
		"an unknown protocol":               {member: filter + "protocol", value: []any{"tcp", "warp"}, about: filter + "protocol[1]", says: "warp"},
		"protocol 256":                      {member: filter + "protocol", value: []any{"256"}, about: filter + "protocol[0]", says: "256"},
		"an empty tag":                      {member: filter + "tag", value: []any{""}, about: filter + "tag[0]"},
		"a list that is a string":           {member: filter + "tag", value: "gold"},
		"a tunnel at no address":            {member: filter + "srcTunnelAddress", value: []any{"here"}, about: filter + "srcTunnelAddress[0]", says: "here"},
		"the end of a tunnel at none":       {member: filter + "tgtTunnelAddress", value: []any{"there"}, about: filter + "tgtTunnelAddress[0]", says: "there"},
		"a QCI of 0":                        {member: filter + "qCI", value: 0, says: "0"},
		"a DSCP of 64":                      {member: filter + "dSCP", value: 64, says: "64"},
		"a traffic class of 256":            {member: filter + "tC", value: 256, says: "256"},
		"an unknown kind of interface":      {member: dst + "interfaceType", value: "RADIO"},
		"no kind of interface":              {member: dst + "interfaceType", value: nil},
		"a MAC address that is none":        {member: dst + "dstMacAddress", value: "00:00:5e:00:53", says: "00:00:5e:00:53"},
		"a MAC address of 64 bits":          {member: dst + "srcMacAddress", value: "00:00:5e:00:53:01:02:03", says: "00:00:5e:00:53:01:02:03"},
		"a MAC interface at no IP address":  {member: dst + "dstIpAddress", value: "10.0.0", says: "10.0.0"},
		"an IP interface at no address":     {member: "appTrafficRule[1].dstInterface", value: []any{object{"interfaceType": "IP", "dstIpAddress": "10.0.0"}}, about: "appTrafficRule[1].dstInterface[0].dstIpAddress", says: "10.0.0"},
		"a tunnel of no type":               {member: tunnel + "tunnelType", value: nil},
		"a tunnel of a type with a blank":   {member: tunnel + "tunnelType", value: "GTP U", says: "GTP U"},
		"a tunnel to no address":            {member: tunnel + "tunnelDstAddress", value: "10.0.0.0/8", says: "10.0.0.0/8"},
		"a tunnel from no address":          {member: tunnel + "tunnelSrcAddress", value: "x", says: `"x"`},
		"no domain name":                    {member: name + "domainName", value: nil},
		"a domain name with a blank":        {member: name + "domainName", value: "a b.example", says: "a b.example"},
		"a domain name with an empty label": {member: name + "domainName", value: "a..example", says: "a..example"},
		"a wildcard in the middle":          {member: name + "domainName", value: "a.*.example", says: "a.*.example"},
		"a domain name of 254 characters":   {member: name + "domainName", value: strings.Repeat("a.", 126) + "aa"},
		"no address type":                   {member: name + "ipAddressType", value: nil},
		"the address type of EdgeGallery":   {member: name + "ipAddressType", value: "IPv4"},
		"no address":                        {member: name + "ipAddress", value: nil},
		"an IPv6 address as IPv4":           {member: name + "ipAddress", value: "2001:db8::1", says: "2001:db8::1"},
		"an IPv4 address as IPv6":           {member: name + "ipAddressType", value: "IP_V6", about: name + "ipAddress", says: "10.0.0.1"},
		"the address of nobody":             {member: name + "ipAddress", value: "0.0.0.0", says: "0.0.0.0"},
		"the address of many":               {member: name + "ipAddress", value: "224.0.0.1", says: "224.0.0.1"},
		"a TTL below 0":                     {member: name + "ttl", value: -1, says: "-1"},
		"a TTL over 31 bits":                {member: name + "ttl", value: int64(1) << 31, says: "2147483648"},
		"a name of 129 bytes":               {member: "appName", value: strings.Repeat("a", 129)},
		"a service without a version":       {member: "appServiceRequired", value: []any{object{"serName": "a"}}, about: "appServiceRequired[0].version"},
		"a transport without a label":       {member: "transportDependencies", value: []any{without(dependency("REST_HTTP", "HTTP", "a"), "labels")}, about: "transportDependencies[0].labels"},
	} {
		t.Run(what, func(t *testing.T) {
			m := mepmOf(t, p)
			problem := m.Put(instance(id), but(good, x.member, x.value)).Problem(400)
			about := x.about
			if about == "" {
				about = x.member
			}
			require.Contains(t, problem.Names(), about, problem.Detail)
			require.Contains(t, problem.Detail, about)
			require.Contains(t, problem.Detail, strings.ReplaceAll(x.says, `"`, ""), "it repeats what was wrong")
		})
	}
	t.Run("everything at once", func(t *testing.T) {
		m := mepmOf(t, p)
		problem := m.Put(instance(id), but(good, rule+"priority", 256, name+"ttl", -1, "appName", 5)).Problem(400)
		require.ElementsMatch(t, []string{rule + "priority", name + "ttl", "appName"}, problem.Names())
	})
	require.Equal(t, before, m.Get(instance(id)).ETag())
	require.Equal(t, []string{"DNS d1 INACTIVE", "TRAFFIC t1 INACTIVE"}, m.rules(id))
	require.Len(t, m.Get(mm5+"/app_lcm_op_occs?app_instance_id="+id).Array(), 1, "what was refused is no operation")

	for what, body := range map[string]string{
		"operate: nothing": `{}`, "operate: another state": `{"changeStateTo":"PAUSED"}`, "operate: a stop of a start": `{"changeStateTo":"STARTED","stopType":"FORCEFUL"}`,
		"operate: a time-out below 0":           `{"changeStateTo":"STOPPED","stopType":"GRACEFUL","gracefulStopTimeout":-1}`,
		"operate: a time-out without grace":     `{"changeStateTo":"STOPPED","gracefulStopTimeout":5}`,
		"operate: a time-out of a week":         `{"changeStateTo":"STOPPED","stopType":"GRACEFUL","gracefulStopTimeout":604800}`,
		"terminate: nothing":                    `{}`,
		"terminate: another type":               `{"terminationType":"KILL"}`,
		"terminate: half a second":              `{"terminationType":"GRACEFUL","gracefulTerminationTimeout":0.5}`,
		"terminate: a time-out that is text":    `{"terminationType":"GRACEFUL","gracefulTerminationTimeout":"5"}`,
		"terminate: a time-out without grace":   `{"terminationType":"FORCEFUL","gracefulTerminationTimeout":5}`,
		"terminate: a time-out beyond 64 bits":  `{"terminationType":"GRACEFUL","gracefulTerminationTimeout":99999999999999999999}`,
		"terminate: nothing that is an object":  `[]`,
		"configure_platform_for_app: no object": `[]`, "configure_platform_for_app: nothing": ``,
	} {
		path, _, _ := strings.Cut(what, ":")
		problem := m.Post(instance(id)+"/"+path, body).Problem(400)
		require.NotEmpty(t, problem.Detail, what)
	}
	require.Equal(t, "CONFIGURED", m.state(id))
}

func TestLimitsOfAConfiguration(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Config("limits: {trafficRules: 64}\n"))
	m, id := mepmOf(t, p), uuid.NewString()
	most := configuration("most", 64, 128)
	filters := make([]any, 16)
	for i := range filters {
		filters[i] = object{"dSCP": i}
	}
	most["appTrafficRule"].([]any)[63].(object)["trafficFilter"] = filters
	most["appTrafficRule"].([]any)[0].(object)["trafficRuleId"] = strings.Repeat("é", 63)
	m.done(m.configure(id, most))
	require.Len(t, m.rules(id), 192)
	for name, cfg := range map[string]object{
		"65 traffic rules": configuration("x", 65, 0), "129 DNS rules": configuration("x", 0, 129),
		"17 filters": but(configuration("x", 1, 0), "appTrafficRule[0].trafficFilter", append(filters, object{})),
	} {
		limit := map[string]string{"6": "64", "1": "1"}[name[:1]]
		require.Contains(t, m.Put(instance(id), cfg).Problem(400).Detail, limit, name)
	}
	require.Len(t, m.rules(id), 192)
	a := app{Client: p.Client(t), id: id}
	a.isReady()
	require.Contains(t, a.Put(a.trafficRule("t2"), but(traffic("t2"), "state", "ACTIVE", "trafficFilter", append(filters, object{}))).Problem(400).Names(), "trafficFilter")
	require.Contains(t, m.Put(instance(id), configuration("x", 0, 10_000)).Problem(400).Detail, "appDNSRule has more than", "10,000 rules")
	m.Put(instance(id), configuration("x", 10_000, 10_000)).Problem(413)

	require.True(t, p.Reload("limits: {trafficRules: 1}\n"))
	require.Contains(t, m.Put(instance(id), configuration("x", 2, 0)).Problem(400).Detail, "more than 1")
	require.Len(t, a.Get(a.trafficRules()).Array(), 64, "what there is stays")
}

func TestTenThousandRules(t *testing.T) {
	t.Parallel()
	c := harness.NewController(t)
	p := harness.Start(t, c.Option(), harness.Args("--limits-traffic-rules=1000", "--limits-dns-rules=1000"))
	m := mepm{p.UncheckedMm5(t)}
	apps := make([]app, 10)
	var working sync.WaitGroup
	for i := range apps {
		apps[i] = newApp(p.Unchecked(t))
		working.Go(func() {
			if _, err := m.Try("PUT", instance(apps[i].id), configuration(fmt.Sprint("a", i), 500, 500)); err != nil {
				t.Error(err)
			}
		})
	}
	working.Wait()
	for _, a := range apps {
		a.isReady()
		c.AwaitRules(t, harness.Traffic, a.id, c500("t")...)
		c.AwaitRules(t, harness.DNS, a.id, c500("d")...)
		require.Len(t, a.Get(a.trafficRules()).Array(), 500)
	}
	p.Kill()
	p.Restart()
	require.Len(t, m.Get(instances).Array(), 10)
	for _, a := range apps {
		require.Len(t, m.rules(a.id), 1000)
	}
	changed := but(traffic("t500"), "priority", 77, "state", "ACTIVE")
	apps[9].Put(apps[9].trafficRule("t500"), changed).Is(200)
	harness.Eventually(t, "one rule among ten thousand is changed", func() error {
		r := c.Rule(harness.Traffic, apps[9].id, "t500")
		return harness.Not(r["priority"] == 77.0, "%v", r)
	})
	var ops []string
	for _, a := range apps {
		ops = append(ops, m.terminate(a.id, forceful))
	}
	for _, op := range ops {
		m.done(op)
	}
	require.Empty(t, c.Apps())
	require.Empty(t, m.Get(instances).Array())
}

func TestDryRunsLeaveNothingBehind(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Args("--limits-traffic-rules=1000"))
	m := mepm{p.UncheckedMm5(t)}
	cfg := configuration("x", 1000, 0)
	for _, r := range cfg["appTrafficRule"].([]any) {
		r.(object)["trafficFilter"] = []any{object{"tag": []any{strings.Repeat("a", 64), strings.Repeat("b", 64), strings.Repeat("c", 64), strings.Repeat("d", 64)}}}
	}
	body, err := json.Marshal(cfg)
	require.NoError(t, err)
	for range 150 {
		m.Put(instance(uuid.NewString())+"?dryRun=true", body).Is(200)
	}
	require.Empty(t, m.Get(instances).Array())
	require.Less(t, p.PeakMemory(), int64(256<<20))
}

func c500(prefix string) []string {
	ids := make([]string, 500)
	for i := range ids {
		ids[i] = fmt.Sprint(prefix, i+1)
	}
	return ids
}

func TestAConfigurationThatIsTooLargeToKeepIsRefusedClearly(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Args("--limits-traffic-rules=1000", "--limits-dns-rules=1000", "--limits-body=8388608"))
	m := mepm{p.UncheckedMm5(t)}
	large := configuration("x", 1000, 0)
	for _, r := range large["appTrafficRule"].([]any) {
		r.(object)["trafficFilter"] = []any{object{"uri": []any{strings.Repeat("<", 1000)}}}
	}
	permissions := []any{}
	for i := range 256 {
		permissions = append(permissions, object{"serName": fmt.Sprint(i), "version": "1", "requestedPermissions": strings.Repeat("x", 16_000)})
	}
	for name, cfg := range map[string]object{
		"rules": large, "permissions": {"appServiceRequired": permissions},
	} {
		t.Run(name, func(t *testing.T) {
			m, id := mepm{p.UncheckedMm5(t)}, uuid.NewString()
			answer := m.Put(instance(id), cfg)
			require.Contains(t, []int{400, 413}, answer.Status, "%s", answer.Body)
			require.NotEmpty(t, answer.Problem(answer.Status).Detail)
			require.Empty(t, m.state(id))
		})
	}
	t.Run("an app that tells too much of itself", func(t *testing.T) {
		a := newApp(p.Unchecked(t))
		answer := a.Post(a.registrations(), but(registration(a.id), "appServiceRequired", permissions))
		require.Contains(t, []int{400, 413}, answer.Status, "%s", answer.Body)
	})
	t.Run("an app that makes its rules too large", func(t *testing.T) {
		a := newApp(p.Unchecked(t))
		m.done(m.configure(a.id, configuration("x", 1000, 0)))
		uris := []any{}
		for i := range 100 {
			uris = append(uris, fmt.Sprint(strings.Repeat("<", 1200), i))
		}
		answer := a.Put(a.trafficRule("t1"), but(traffic("t1"), "state", "ACTIVE", "trafficFilter", []any{object{"uri": uris}}))
		require.Contains(t, answer.Problem(400).Detail, "bytes")
		require.Len(t, a.Get(a.trafficRules()).Array(), 1000)
	})
}
