package blackbox

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

// kat is a known answer: a request whose signature was computed by others.
type kat struct{ host, date, answer string }

var (
	katKeys = harness.Keys{
		AccessKeyID: "QVUJMSUMgS0VZLS0tLS0", SecretKey: "DXPb4sqElKhcHe07Kw5uorayETwId1JOjjOIRomRs5wyszoCR5R7AtVa28KT3lSc",
	}
	katOne = kat{"119.8.47.5:30443", "20210302T195133Z", "b726e5f20b4a1520efb455a60127bfe076c2917b51cecb8fddd49ba1d37019b8"}
	katTwo = kat{"mep-api-gw.mep:8443", "20240102T030405Z", "c3e8edfc830431de6d8690b4f09171c47d4d762962144c87fc343774df4ebdb9"}
)

func (k kat) signature() signature { return signature{Keys: katKeys, date: k.date, host: k.host} }

// option sends exactly what is known.
func (k kat) option() harness.RequestOption {
	return func(r *http.Request) {
		r.Host = k.host
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("X-Sdk-Date", k.date)
		r.Header.Set("Authorization", "SDK-HMAC-SHA256 Access="+katKeys.AccessKeyID+
			", SignedHeaders=content-type;host;x-sdk-date, Signature="+k.answer)
	}
}

func confs(k harness.Keys) object {
	return object{"authInfo": object{"credentials": object{"accessKeyId": k.AccessKeyID, "secretKey": k.SecretKey}}, "appInfo": object{"appName": "known"}}
}

func TestKnownSignaturesAreTaken(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure(), harness.Args("--auth-signature-window", "0s"))
	id := uuid.NewString()
	harness.ProvisionAs(p.Manager(t), id, confs(katKeys))
	for name, k := range map[string]kat{"KAT-1": katOne, "KAT-2": katTwo} {
		t.Run(name, func(t *testing.T) {
			for _, c := range []*harness.Client{p.AuthAtMp1(t), p.Auth(t)} {
				a := c.Post("/mep/token", nil, k.option())
				if c.Base() == p.URL("auth") {
					require.Contains(t, oauthError(t, a, 401, "invalid_client"), "used before")
					continue
				}
				var token harness.Token
				a.Is(200).Into(&token)
				require.Equal(t, "Bearer", token.TokenType)
				require.Equal(t, 3600, token.ExpiresIn)
				require.Equal(t, "mp1", token.Scope)
				require.Equal(t, id, claims(t, token.AccessToken)["sub"])
				one := app{Client: p.Client(t).With(token.AccessToken), id: id, prefix: "/mep"}
				one.Get(one.services()).Is(200)
			}
		})
	}
	t.Run("within the window only, when there is one", func(t *testing.T) {
		p := harness.Start(t, harness.Secure())
		harness.ProvisionAs(p.Manager(t), id, confs(katKeys))
		oauthError(t, p.Auth(t).Post("/mep/token", nil, katOne.option()), 401, "invalid_client")
	})
}

func TestTheGrammarOfASignature(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure(), generous(), patient())
	keys := harness.Provision(p.Manager(t), nil)
	c := p.Auth(t)
	hex64 := strings.Repeat("a", 64)
	header := func(access, signed, sig string) string {
		return "SDK-HMAC-SHA256 Access=" + access + ", SignedHeaders=" + signed + ", Signature=" + sig
	}
	const usual = "content-type;host;x-sdk-date"
	for name, value := range map[string]string{
		"nothing":              "",
		"another scheme":       "Bearer x",
		"another algorithm":    strings.Replace(header(keys.AccessKeyID, usual, hex64), "SHA256", "SHA512", 1),
		"no space":             "SDK-HMAC-SHA256Access=" + keys.AccessKeyID,
		"two spaces":           strings.Replace(header(keys.AccessKeyID, usual, hex64), " Access", "  Access", 1),
		"lower case":           strings.ToLower(header(keys.AccessKeyID, usual, hex64)),
		"a short access key":   header(keys.AccessKeyID[:19], usual, hex64),
		"a long access key":    header(keys.AccessKeyID+"a", usual, hex64),
		"a foreign character":  header("aaaaaaaaaaaaaaaaaaa!", usual, hex64),
		"no signed headers":    header(keys.AccessKeyID, "", hex64),
		"host not signed":      header(keys.AccessKeyID, "content-type;x-sdk-date", hex64),
		"date not signed":      header(keys.AccessKeyID, "content-type;host", hex64),
		"headers not sorted":   header(keys.AccessKeyID, "host;content-type;x-sdk-date", hex64),
		"headers in upper":     header(keys.AccessKeyID, "Content-Type;host;x-sdk-date", hex64),
		"a header twice":       header(keys.AccessKeyID, "host;host;x-sdk-date", hex64),
		"too many headers":     header(keys.AccessKeyID, strings.Repeat("a;", 600)+"host;x-sdk-date", hex64),
		"a short signature":    header(keys.AccessKeyID, usual, hex64[:63]),
		"a long signature":     header(keys.AccessKeyID, usual, hex64+"a"),
		"upper-case signature": header(keys.AccessKeyID, usual, strings.ToUpper(hex64)),
		"no hexadecimal":       header(keys.AccessKeyID, usual, strings.Repeat("g", 64)),
		"something behind":     header(keys.AccessKeyID, usual, hex64) + ", x=y",
		"no comma":             strings.ReplaceAll(header(keys.AccessKeyID, usual, hex64), ", ", " "),
		"no space after comma": strings.ReplaceAll(header(keys.AccessKeyID, usual, hex64), ", ", ","),
	} {
		t.Run(name, func(t *testing.T) {
			a := p.Auth(t).Post("/mep/token", nil, harness.Header("X-Sdk-Date", aged(0)), harness.Header("Content-Type", "application/json"), harness.Header("Authorization", value))
			said := oauthError(t, a, 400, "invalid_request")
			require.NotContains(t, said, hex64)
		})
	}
	for name, date := range map[string]string{
		"no date": "", "an extended date": time.Now().UTC().Format(time.RFC3339), "a zone": "20260101T000000+0100", "a fraction": "20260101T000000.5Z",
		"a day that is none": "20260231T000000Z", "words": "now", "a date and more": aged(0) + "x",
	} {
		t.Run(name, func(t *testing.T) {
			s := signature{Keys: keys}
			a := p.Auth(t).Post("/mep/token", nil, s.option(), harness.Header("X-Sdk-Date", date))
			oauthError(t, a, 400, "invalid_request")
		})
	}
	t.Run("several Authorization headers", func(t *testing.T) {
		one := header(keys.AccessKeyID, usual, hex64)
		a := c.Post("/mep/token", nil, signature{Keys: keys}.option(), func(r *http.Request) { r.Header.Add("Authorization", one) })
		oauthError(t, a, 400, "invalid_request")
	})
	t.Run("other methods", func(t *testing.T) {
		for _, method := range []string{"GET", "PUT", "DELETE", "PATCH"} {
			a := p.Auth(t).Do(method, "/mep/token", nil)
			a.Problem(405)
			require.Equal(t, "POST", a.Header.Get("Allow"))
			unauthenticated(t, p.Unchecked(t).Do(method, "/mep/token", nil), "")
		}
	})
}

// agent does what EdgeGallery's mep-agent does: its own TLS settings, one address for all, a fixed content type, no body.
type agent struct {
	http *http.Client
	base string
}

func (a agent) do(t *testing.T, method, path string, body any, change func(*http.Request)) (int, []byte) {
	t.Helper()
	var reader io.Reader = http.NoBody
	if body != nil {
		data, err := json.Marshal(body)
		require.NoError(t, err)
		reader = bytes.NewReader(data)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, a.base+path, reader)
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/json")
	change(r)
	resp, err := a.http.Do(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, data
}

func TestAnUnmodifiedMepAgentGetsItsTokenAndRegisters(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		zone *time.Location
		args []string
	}{
		"in UTC":                           {time.UTC, nil},
		"with local time, window disabled": {time.FixedZone("CST", 8*3600), []string{"--auth-signature-window=0s"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := harness.Start(t, harness.Secure(), harness.Args(x.args...))
			keys := harness.Provision(p.Manager(t), object{"appInfo": object{"appName": "agent", "requiredServices": nil},
				"authInfo": object{"credentials": object{"accessKeyId": characters(19) + "=", "secretKey": characters(62) + "+/", "appName": "ignored"}}})
			a := agent{base: p.URL("mp1"), http: &http.Client{Timeout: harness.Patience, Transport: &http.Transport{TLSClientConfig: &tls.Config{
				InsecureSkipVerify: true, // as the agent does
				CipherSuites: []uint16{
					tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
				},
			}}}}
			t.Cleanup(a.http.CloseIdleConnections)
			s := signature{Keys: keys, date: time.Now().In(x.zone).Format("20060102T150405Z")}
			status, data := a.do(t, "POST", "/mep/token", nil, s.option())
			require.Equal(t, 200, status, "%s", data)
			var reply struct {
				AccessToken string `json:"access_token"`
				TokenType   string `json:"token_type"`
				ExpiresIn   int    `json:"expires_in"`
			}
			require.NoError(t, json.Unmarshal(data, &reply))
			require.Equal(t, "Bearer", reply.TokenType)
			require.Equal(t, 3600, reply.ExpiresIn)
			bearer := func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+reply.AccessToken) }
			base := "/mep/mec_service_mgmt/v1/applications/" + keys.AppInstanceID + "/services"
			status, data = a.do(t, "POST", base, but(own("agents"), "transportInfo.security", object{"oAuth2Info": object{"grantTypes": []any{"OAUTH2_CLIENT_CREDENTIALS"}, "tokenEndpoint": "/mep/token"}}), bearer)
			require.Equal(t, 201, status, "%s", data)
			status, data = a.do(t, "GET", "/mep/mec_service_mgmt/v1/services?ser_name=agents", nil, bearer)
			require.Equal(t, 200, status, "%s", data)
			require.Contains(t, string(data), `"agents"`)
		})
	}
}
