package gateway_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/gateway"
)

func TestPoliciesThatAreRight(t *testing.T) {
	for _, body := range []string{
		`{}`,
		`{"authentication":["token","apiKey","certificate","anonymous"],"scopes":["mp1","a:b/c"],"keepAuthorization":true,
			"claims":{"X-Subject":"sub"},"default":"deny","sharing":"conditional","concurrent":5,"whenStoreAway":"allow","maxBody":-1,
			"rules":[{"effect":"allow","consumers":["a"],"scopes":["mp1"],"sources":["192.0.2.0/24","::/0","192.0.2.1"],"methods":["GET"],
				"paths":["/**","/services/*"]}],
			"quotas":[{"calls":1,"per":"minute"},{"calls":1000000000000,"per":"month"}],
			"spikeArrest":{"calls":10,"per":"second","buffer":5},
			"timeouts":{"connect":"1s","response":"0s","idle":"24h","total":"1.5s"}}`,
		`{"externalAuth":{"url":"https://a.example:8443/check?x=1","headers":["Authorization","cookie"],"body":1048576,"return":["X-User"],
			"timeout":"500ms","failOpen":true,"cache":"1m"}}`,
		`{"upstream":{"ca":` + quoted(t, "text before\n"+certificate(t)+certificate(t)) + `,"clientCertificate":"a.b","serverName":"a.example",
			"proxy":"http://proxy:3128","retries":-1,"ejectAfter":-1,"ejectFor":"10s","slowStart":"0s",
			"healthCheck":{"path":"/health/","interval":"100ms","timeout":"1s","healthy":1,"unhealthy":3}}}`,
		`{"upstream":{"proxy":"none"}}`,
		`{"headers":{"forwarded":false,"set":{"X-A":"","Authorization":"Basic eA=="},"remove":["Cookie","X-AppInstanceID","TE"],
			"setResponse":{"Strict-Transport-Security":"max-age=1"},"removeResponse":["Server"]},"excludeFilters":["a-b"]}`,
	} {
		require.Empty(t, faultsOf(t, new(gateway.Policy), body), body)
	}
}

func TestFaultsOfPolicies(t *testing.T) {
	pem := certificate(t)
	for name, x := range map[string]struct {
		body string
		want []string
	}{
		"authentication":         {`{"authentication":["password","token","token"]}`, []string{`authentication[0] must be token, apiKey, certificate or anonymous, not "password"`, "authentication[2] must differ from authentication[1]"}},
		"scopes":                 {`{"scopes":["a b","é","` + strings.Repeat("x", 129) + `"]}`, []string{"scopes[0] must be a scope", "scopes[1] must be a scope", "scopes[2] must be a scope of 1 to 128 characters"}},
		"claims into identity":   {`{"claims":{"X-AppInstanceID":"sub","x-consumer-Id":"sub","Host":"sub","Content-Length":"n","transfer-encoding":"x","Connection":"c",":path":"p","X":""}}`, []string{`claims has a member that must be the name of a header field of at most 128 characters, not ":path"`, "claims.Connection must not be set: it is about the connection", "claims.Content-Length must not be set: it says where the message goes or ends", "claims.Host must not be set", "claims.X is required", "claims.X-AppInstanceID must not be set: it says who the caller is", "claims.transfer-encoding must not be set", "claims.x-consumer-Id must not be set: it says who"}},
		"rules":                  {`{"rules":[{},{"effect":"maybe","consumers":[""],"scopes":["a b"],"sources":["192.0.2.1/24","::ffff:192.0.2.1","fe80::1%eth0","a"],"methods":["get"],"paths":["a"]}]}`, []string{"rules[0].effect is required: allow or deny", `rules[1].effect must be allow or deny, not "maybe"`, "rules[1].consumers[0] is required", "rules[1].scopes[0] must be a scope", `rules[1].sources[0] must be 192.0.2.0/24 (no bits may be set beyond the length of a prefix), not "192.0.2.1/24"`, "rules[1].sources[1] must be in the notation of IPv4", "rules[1].sources[2] must be a network", "rules[1].sources[3] must be a network", "rules[1].methods[0] must be a method", `rules[1].paths[0] must be a path that begins with "/"`}},
		"enumerations":           {`{"default":"ALLOW","sharing":"closed","whenStoreAway":"wait"}`, []string{"default must be allow or deny", "sharing must be open or conditional", "whenStoreAway must be refuse or allow"}},
		"numbers":                {`{"concurrent":-1,"maxBody":-2}`, []string{"concurrent must be 0 to 1000000, not -1", "maxBody must be -1 to"}},
		"external authorisation": {`{"externalAuth":{"headers":["a b"],"body":1048577,"return":["X-Consumer-Scopes","Trailer","X-A","X-A"],"timeout":"0s","cache":"25h"}}`, []string{"externalAuth.url is required", "externalAuth.headers[0] must be the name of a header field", "externalAuth.body must be 0 to 1048576, not 1048577", "externalAuth.return[0] must not be set", "externalAuth.return[1] must not be set", "externalAuth.return[3] must differ", `externalAuth.timeout must be 1ms to 1m, not "0s"`, `externalAuth.cache must be 0s to 24h, not "25h"`}},
		"its URL":                {`{"externalAuth":{"url":"h2c://a"}}`, []string{`externalAuth.url must be an absolute URL of http or https, not "h2c://a"`}},
		"quotas":                 {`{"quotas":[{"calls":0,"per":"minute"},{"calls":1000000000001,"per":"minute"},{"calls":1,"per":"year"},{"calls":1}]}`, []string{"quotas[0].calls must be 1 to 1000000000000, not 0", "quotas[1].calls must be 1 to", "quotas[1].per must differ from that of quotas[0]", `quotas[2].per must be minute, hour, day or month, not "year"`, "quotas[3].per is required"}},
		"too many quotas":        {`{"quotas":[{},{},{},{},{}]}`, []string{"quotas must have at most 4 elements, not 5"}},
		"spike arrest":           {`{"spikeArrest":{"calls":0,"per":"hour","buffer":10001}}`, []string{"spikeArrest.calls must be 1 to", "spikeArrest.per must be second or minute", "spikeArrest.buffer must be 0 to 10000"}},
		"timeouts":               {`{"timeouts":{"connect":"5","response":"-1s","idle":"25h","total":"soon"}}`, []string{`timeouts.connect must be a duration such as "250ms", "1.5s" or "1h", not "5"`, "timeouts.response must be 0s to 24h", "timeouts.idle must be", "timeouts.total must be a duration"}},
		"upstream":               {`{"upstream":{"ca":"x","clientCertificate":"a/b","serverName":"*.a","proxy":"socks5://a","retries":11,"ejectAfter":-2,"ejectFor":"0s","slowStart":"-1s","healthCheck":{"interval":"99ms","timeout":"2m","healthy":-1,"unhealthy":1001}}}`, []string{"upstream.ca must have certificates in PEM", "upstream.clientCertificate must be 1 to 63", "upstream.serverName must be a host name or an IP address", "upstream.proxy must be an absolute URL of http or https", "upstream.retries must be -1 to 10", "upstream.healthCheck.path is required", "upstream.healthCheck.interval must be 100ms to 24h", "upstream.healthCheck.timeout must be", "upstream.healthCheck.healthy must be", "upstream.healthCheck.unhealthy must be", "upstream.ejectAfter must be -1 to 1000", "upstream.ejectFor must be 1ms to", "upstream.slowStart must be 0s to"}},
		"password of a proxy":    {`{"upstream":{"proxy":"http://u:p@a"}}`, []string{"upstream.proxy must not have a user name or password"}},
		"health of elsewhere":    {`{"upstream":{"healthCheck":{"path":"/a/../b"}}}`, []string{"upstream.healthCheck.path must not have the segments"}},
		"health with a query":    {`{"upstream":{"healthCheck":{"path":"/a?b"}}}`, []string{"upstream.healthCheck.path must be written as in a URL"}},
		"key for a certificate":  {`{"upstream":{"ca":` + quoted(t, strings.ReplaceAll(pem, "CERTIFICATE", "EC PRIVATE KEY")) + `}}`, []string{`upstream.ca must have certificates only, not a "EC PRIVATE KEY"`}},
		"broken certificate":     {`{"upstream":{"ca":` + quoted(t, pem+strings.Replace(pem, "MI", "NI", 1)) + `}}`, []string{"upstream.ca must have certificates, which number 2 is not"}},
		"large certificate":      {`{"upstream":{"ca":` + quoted(t, strings.Repeat(pem, 1000)) + `}}`, []string{"upstream.ca must be at most 262144 bytes long"}},
		"header fields":          {`{"headers":{"set":{"Host":"a","X-Consumer-Id":"b","Upgrade":"c","X":"a\rb"},"remove":["x","Content-Length","a b","Y","Y"],"setResponse":{"Content-Length":"1","Keep-Alive":"x"},"removeResponse":["Transfer-Encoding"]}}`, []string{"headers.set.Host must not be set", "headers.set.Upgrade must not be set", "headers.set.X must not have control", "headers.set.X-Consumer-Id must not be set", `headers.remove[0] must not be in set, too: "x"`, "headers.remove[1] must not be Content-Length", "headers.remove[2] must be the name", "headers.remove[4] must differ", "headers.setResponse.Content-Length must not be set", "headers.setResponse.Keep-Alive must not be set", "headers.removeResponse[0] must not be Transfer-Encoding"}},
		"filters":                {`{"excludeFilters":["","a"]}`, []string{"excludeFilters[0] must be 1 to 63"}},
		"elements without end":   {`{"scopes":["` + strings.Repeat(`a","`, 100) + `b"]}`, []string{"scopes must have at most 100 elements, not 101"}},
		"rules without end":      {`{"rules":[{}` + strings.Repeat(`,{}`, 100) + `]}`, []string{"rules must have at most 100 elements, not 101"}},
		"fields without end":     {`{"claims":{"0":"x","1":"x","2":"x","3":"x","4":"x","5":"x","6":"x","7":"x","8":"x","9":"x","a":"x","b":"x","c":"x","d":"x","e":"x","f":"x","g":"x"}}`, []string{"claims must have at most 16 members, not 17"}},
	} {
		t.Run(name, func(t *testing.T) { requireFaults(t, x.want, faultsOf(t, new(gateway.Policy), x.body)) })
	}
}
