package signing_test

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/signing"
)

const (
	accessKey = "QVUJMSUMgS0VZLS0tLS0"
	secretKey = "DXPb4sqElKhcHe07Kw5uorayETwId1JOjjOIRomRs5wyszoCR5R7AtVa28KT3lSc"
)

var usual = []string{"content-type", "host", "x-sdk-date"}

// known are requests whose signatures were computed by other implementations.
var known = map[string]struct {
	host, date, canonicalHash, signature string
}{
	"published": {
		"119.8.47.5:30443", "20210302T195133Z",
		"", "b726e5f20b4a1520efb455a60127bfe076c2917b51cecb8fddd49ba1d37019b8",
	},
	"by an independent script": {
		"mep-api-gw.mep:8443", "20240102T030405Z",
		"e18c6d7be112e0b11366438107321c16903563ee84918a1ddef74f2b0ba36d80",
		"c3e8edfc830431de6d8690b4f09171c47d4d762962144c87fc343774df4ebdb9",
	},
}

func tokenRequest(host, date string) *signing.Message {
	return &signing.Message{
		Method: "POST", Host: host, Path: "/mep/token",
		Header: http.Header{"Content-Type": {"application/json"}, "X-Sdk-Date": {date}},
	}
}

func TestKnownSignatures(t *testing.T) {
	for name, k := range known {
		t.Run(name, func(t *testing.T) {
			m := tokenRequest(k.host, k.date)
			if k.canonicalHash != "" {
				sum := sha256.Sum256([]byte(m.CanonicalRequest(usual)))
				require.Equal(t, k.canonicalHash, hex.EncodeToString(sum[:]))
			}
			require.Equal(t, k.signature, hex.EncodeToString(m.Signature([]byte(secretKey), usual)))
		})
	}
}

func TestSignMakesTheKnownSignatures(t *testing.T) {
	for name, k := range known {
		t.Run(name, func(t *testing.T) {
			at, err := time.Parse(signing.DateLayout, k.date)
			require.NoError(t, err)
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+k.host+"/mep/token", nil)
			require.NoError(t, err)
			signing.Sign(r, accessKey, secretKey, nil, at.In(time.FixedZone("", 2*60*60)))
			require.Equal(t, k.date, r.Header.Get(signing.DateHeader))
			require.Equal(t, "SDK-HMAC-SHA256 Access="+accessKey+", SignedHeaders=content-type;host;x-sdk-date, Signature="+k.signature,
				r.Header.Get("Authorization"))
		})
	}
}

func TestTheCanonicalRequestHasSixParts(t *testing.T) {
	m := tokenRequest("h:1", "20240102T030405Z")
	m.Method, m.Path, m.RawQuery, m.Body = "post", "/a/./b%20c//d", "b=2&a=1", []byte("{}")
	require.Equal(t, "POST\n/a/b+c/d/\na=1&b=2\n"+
		"content-type:application/json\nhost:h:1\nx-sdk-date:20240102T030405Z\n\n"+
		"content-type;host;x-sdk-date\n"+
		"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a", m.CanonicalRequest(usual))
}

// part returns a single-line part of a canonical request.
func part(m *signing.Message, n int) string {
	return strings.Split(m.CanonicalRequest(usual), "\n")[n]
}

func TestThePathIsWrittenInOneWay(t *testing.T) {
	for path, canonical := range map[string]string{
		"":                       "/",
		"/":                      "/",
		"//":                     "/",
		"/mep/token":             "/mep/token/",
		"/mep/token/":            "/mep/token/",
		"mep//token":             "/mep/token/",
		"/a/./b/../c":            "/a/b/c/",
		"/a%20b/c+d":             "/a+b/c%2Bd/",
		"/a%2Fb":                 "/a/b/",
		"/%2e%2e/a":              "/a/",
		"/caf%C3%A9/~x-_.y":      "/caf%C3%A9/~x-_.y/",
		"/100%":                  "/100%25/",
		"/a=b&c;d:e@f,g$h!i'(j)": "/a%3Db%26c%3Bd%3Ae%40f%2Cg%24h%21i%27%28j%29/",
	} {
		m := tokenRequest("h", "d")
		m.Path = path
		require.Equal(t, canonical, part(m, 1), "%q", path)
	}
}

func TestTheQueryIsWrittenInOneWay(t *testing.T) {
	for query, canonical := range map[string]string{
		"":                  "",
		"a":                 "a=",
		"a=":                "a=",
		"b=1&a=2&a=1":       "a=1&a=2&b=1",
		"a=x+y&b=x%20y":     "a=x+y&b=x+y",
		"a%3Db=c%26d":       "a%3Db=c%26d",
		"a-b=1&a=1":         "a-b=1&a=1", // whole pairs are sorted, and "-" sorts before "="
		"good=1&bad=%zz":    "good=1",
		"a=1&&b=2":          "a=1&b=2",
		"n=caf%C3%A9&t=a~b": "n=caf%C3%A9&t=a~b",
	} {
		m := tokenRequest("h", "d")
		m.RawQuery = query
		require.Equal(t, canonical, part(m, 2), "%q", query)
	}
}

func TestTheHeadersAreWrittenInOneWay(t *testing.T) {
	m := &signing.Message{Method: "GET", Host: " h:1 ", Path: "/", Header: http.Header{
		"X-Sdk-Date": {"\t20240102T030405Z "},
		"X-A":        {" b ", "a", "c,d"},
		"X-A-B":      {"1"},
		"X-A1":       {"2"},
		"X-Empty":    {""},
		"X-Unsigned": {"no"},
		"Host":       {"another"},
	}}
	signed := []string{"host", "x-a", "x-a-b", "x-a1", "x-empty", "x-none", "x-sdk-date"}
	_, headers, _ := strings.Cut(m.CanonicalRequest(signed), "/\n\n")
	headers, _, _ = strings.Cut(headers, "\n\n")
	// Lines are sorted, not names: "-" and digits sort before ":".
	require.Equal(t, []string{
		"host:h:1", "x-a-b:1", "x-a1:2", "x-a:a,b,c,d", "x-empty:", "x-none:", "x-sdk-date:20240102T030405Z",
	}, strings.Split(headers, "\n"))
	require.Equal(t, []string{"host", "x-a", "x-a-b", "x-a1", "x-empty", "x-none", "x-sdk-date"}, signed, "the list must stay as it is")
}

func TestASignatureCoversEverything(t *testing.T) {
	base := func() *signing.Message {
		m := tokenRequest("h", "20240102T030405Z")
		m.RawQuery, m.Body = "a=1", []byte("body")
		return m
	}
	signature := base().Signature([]byte(secretKey), usual)
	require.Len(t, signature, sha256.Size)
	require.Equal(t, signature, base().Signature([]byte(secretKey), usual))
	for name, change := range map[string]func(*signing.Message){
		"method":       func(m *signing.Message) { m.Method = "PUT" },
		"host":         func(m *signing.Message) { m.Host = "i" },
		"path":         func(m *signing.Message) { m.Path = "/mep/tokens" },
		"query":        func(m *signing.Message) { m.RawQuery = "a=2" },
		"date":         func(m *signing.Message) { m.Header.Set("X-Sdk-Date", "20240102T030406Z") },
		"content type": func(m *signing.Message) { m.Header.Set("Content-Type", "application/json; charset=utf-8") },
		"body":         func(m *signing.Message) { m.Body = nil },
	} {
		m := base()
		change(m)
		require.NotEqual(t, signature, m.Signature([]byte(secretKey), usual), name)
	}
	require.NotEqual(t, signature, base().Signature([]byte(secretKey[1:]), usual), "secret key")
	require.NotEqual(t, signature, base().Signature([]byte(secretKey), usual[1:]), "list of headers")
}

func TestSignKeepsTheContentType(t *testing.T) {
	r := &http.Request{Method: http.MethodPost, Host: "h", URL: mustRequest(t, "http://other/x").URL}
	signing.Sign(r, accessKey, secretKey, nil, time.Unix(0, 0))
	require.Equal(t, "application/json", r.Header.Get("Content-Type"))
	require.Equal(t, "19700101T000000Z", r.Header.Get("X-Sdk-Date"))

	r.Header.Set("Content-Type", "text/plain")
	signing.Sign(r, accessKey, secretKey, nil, time.Unix(0, 0))
	require.Equal(t, "text/plain", r.Header.Get("Content-Type"))
	requireSigned(t, r, "h", nil)
}

func mustRequest(t *testing.T, url string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	return r
}

// requireSigned verifies a request as a server does.
func requireSigned(t *testing.T, r *http.Request, host string, body []byte) {
	t.Helper()
	a, err := signing.ParseAuthorization(r.Header.Get("Authorization"))
	require.NoError(t, err)
	require.Equal(t, accessKey, a.AccessKeyID)
	require.Equal(t, usual, a.SignedHeaders)
	m := signing.Message{
		Method: r.Method, Host: host, Path: r.URL.EscapedPath(), RawQuery: r.URL.RawQuery, Header: r.Header, Body: body,
	}
	given, err := hex.DecodeString(a.Signature)
	require.NoError(t, err)
	require.True(t, hmac.Equal(given, m.Signature([]byte(secretKey), a.SignedHeaders)), "%s", m.CanonicalRequest(a.SignedHeaders))
}

func TestWhatIsSignedIsRecognisedAfterTheWire(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	text := func(of string, most int) string {
		b := make([]byte, rng.IntN(most+1))
		for i := range b {
			b[i] = of[rng.IntN(len(of))]
		}
		return string(b)
	}
	methods := []string{"", "GET", "POST", "PUT"}
	for range 500 {
		method, body := methods[rng.IntN(len(methods))], []byte(text("{}\x00\xff\n", 40))
		if method == "" || method == "GET" {
			body = nil
		}
		target := fmt.Sprintf("http://%s:%d/%s", "h"+text("abc-", 6)+"x", 1+rng.IntN(65535), text("ab/./..%2F%20+~*'", 20))
		target = strings.ReplaceAll(target, "%", "%25") // or it may be no URL
		if rng.IntN(2) == 0 {
			target += "?" + text("ab=&+;%", 20)
		}
		r, err := http.NewRequestWithContext(t.Context(), method, target, bytes.NewReader(body))
		require.NoError(t, err)
		r.Method = method
		if rng.IntN(2) == 0 {
			r.Host = text("abc.", 5) + "virtual"
		}
		if rng.IntN(2) == 0 {
			r.Header.Set("Content-Type", "x/"+text("abc", 3)+"y")
		}
		signing.Sign(r, accessKey, secretKey, body, time.Unix(rng.Int64N(4e9), rng.Int64N(1e9)))

		var wire bytes.Buffer
		require.NoError(t, r.Write(&wire))
		received, err := http.ReadRequest(bufio.NewReader(&wire))
		require.NoError(t, err)
		got, err := io.ReadAll(received.Body)
		require.NoError(t, err)
		requireSigned(t, received, received.Host, got)
	}
}

func TestFormOfKeys(t *testing.T) {
	require.True(t, signing.ValidAccessKeyID(accessKey))
	require.True(t, signing.ValidAccessKeyID("azAZ09_+/=azAZ09_+/="))
	require.True(t, signing.ValidSecretKey(secretKey))
	for _, s := range []string{"", accessKey[1:], accessKey + "x", accessKey[1:] + "-", accessKey[1:] + " ", accessKey[1:] + "\x00", accessKey[2:] + "é"} {
		require.False(t, signing.ValidAccessKeyID(s), "%q", s)
	}
	for _, s := range []string{"", secretKey[1:], secretKey + "x", secretKey[1:] + ":", secretKey[1:] + "\n", accessKey} {
		require.False(t, signing.ValidSecretKey(s), "%q", s)
	}
}

func BenchmarkSignature(b *testing.B) {
	m, key := tokenRequest("mep.example:8443", "20240102T030405Z"), []byte(secretKey)
	b.ReportAllocs()
	for b.Loop() {
		m.Signature(key, usual)
	}
}

func BenchmarkParseAuthorization(b *testing.B) {
	value := signing.Authorization{
		AccessKeyID: accessKey, SignedHeaders: usual, Signature: strings.Repeat("0", 64),
	}.String()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := signing.ParseAuthorization(value); err != nil {
			b.Fatal(err)
		}
	}
}
