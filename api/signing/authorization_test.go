package signing_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/signing"
)

var hex64 = strings.Repeat("0123456789abcdef", 4)

func header(access, signed, signature string) string {
	return "SDK-HMAC-SHA256 Access=" + access + ", SignedHeaders=" + signed + ", Signature=" + signature
}

func TestParseAuthorization(t *testing.T) {
	many := make([]string, 30)
	for i := range many {
		many[i] = fmt.Sprintf("a%02d", i)
	}
	for name, signed := range map[string]string{
		"the usual headers": "content-type;host;x-sdk-date",
		"the least":         "host;x-sdk-date",
		"more":              "accept;content-type;host;x-real-ip;x-sdk-date;~odd",
		"the most names":    strings.Join(many, ";") + ";host;x-sdk-date",
		"the longest names": strings.Repeat("a", 512-len(";host;x-sdk-date")) + ";host;x-sdk-date",
	} {
		t.Run(name, func(t *testing.T) {
			value := header(accessKey, signed, hex64)
			a, err := signing.ParseAuthorization(value)
			require.NoError(t, err)
			require.Equal(t, signing.Authorization{
				AccessKeyID: accessKey, SignedHeaders: strings.Split(signed, ";"), Signature: hex64,
			}, a)
			require.Equal(t, value, a.String())
		})
	}
}

func TestAnAuthorizationThatIsRefusedSaysWhatIsExpected(t *testing.T) {
	const usual = "content-type;host;x-sdk-date"
	good := header(accessKey, usual, hex64)
	many := strings.Repeat("a;", 31) + "host;x-sdk-date"
	for name, x := range map[string]struct{ value, reason string }{
		"nothing":                {"", "must start with SDK-HMAC-SHA256"},
		"another scheme":         {"Bearer abc", "must start with SDK-HMAC-SHA256"},
		"only the algorithm":     {"SDK-HMAC-SHA256", "one space"},
		"lower case":             {strings.ToLower(good), "must start with SDK-HMAC-SHA256"},
		"text before":            {" " + good, "must start with SDK-HMAC-SHA256"},
		"two spaces":             {strings.Replace(good, " ", "  ", 1), `"Access="`},
		"no access key":          {"SDK-HMAC-SHA256 SignedHeaders=" + usual + ", Signature=" + hex64, `"Access="`},
		"short access key":       {header(accessKey[1:], usual, hex64), "20 letters"},
		"long access key":        {header(accessKey+"x", usual, hex64), "20 letters"},
		"odd access key":         {header(accessKey[1:]+"-", usual, hex64), "20 letters"},
		"access key and no more": {"SDK-HMAC-SHA256 Access=" + accessKey, `", " after the algorithm`},
		"no space after comma":   {strings.Replace(good, ", ", ",", 1), "20 letters"},
		"no headers":             {"SDK-HMAC-SHA256 Access=" + accessKey + ", Signature=" + hex64, `"SignedHeaders="`},
		"headers and no more":    {"SDK-HMAC-SHA256 Access=" + accessKey + ", SignedHeaders=" + usual, `", " after the access key`},
		"empty headers":          {header(accessKey, "", hex64), "names in lower case"},
		"empty name":             {header(accessKey, "host;;x-sdk-date", hex64), "names in lower case"},
		"upper case name":        {header(accessKey, "Host;x-sdk-date", hex64), "names in lower case"},
		"no token":               {header(accessKey, "ho st;host;x-sdk-date", hex64), "names in lower case"},
		"not ASCII":              {header(accessKey, "höst;host;x-sdk-date", hex64), "names in lower case"},
		"unsorted":               {header(accessKey, "x-sdk-date;host", hex64), "sorted"},
		"twice":                  {header(accessKey, "host;host;x-sdk-date", hex64), "each of them once"},
		"without host":           {header(accessKey, "content-type;x-sdk-date", hex64), "host among"},
		"without date":           {header(accessKey, "content-type;host", hex64), "x-sdk-date among"},
		"too many names":         {header(accessKey, many, hex64), "at most 32 names"},
		"names too long":         {header(accessKey, strings.Repeat("a", 512)+";host;x-sdk-date", hex64), "512 bytes"},
		"no signature":           {header(accessKey, usual, ""), `"Signature="`},
		"short signature":        {header(accessKey, usual, hex64[1:]), "64 hexadecimal digits"},
		"long signature":         {header(accessKey, usual, hex64+"0"), "64 hexadecimal digits"},
		"upper case signature":   {header(accessKey, usual, strings.ToUpper(hex64)), "lower case"},
		"no hexadecimal digits":  {header(accessKey, usual, "g"+hex64[1:]), "64 hexadecimal digits"},
		"text after":             {good + " ", "must end with"},
		"another part":           {good + ", Extra=1", "must end with"},
		"wrong order":            {"SDK-HMAC-SHA256 Access=" + accessKey + ", Signature=" + hex64 + ", SignedHeaders=" + usual, `"SignedHeaders="`},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := signing.ParseAuthorization(x.value)
			require.ErrorContains(t, err, "the Authorization header ")
			require.ErrorContains(t, err, x.reason)
			require.Zero(t, a)
		})
	}
}

func FuzzParseAuthorization(f *testing.F) {
	f.Add(header(accessKey, "content-type;host;x-sdk-date", hex64))
	f.Add(header(accessKey, "host;x-a;x-a-b;x-sdk-date", hex64))
	f.Add(header(accessKey, "host;;x-sdk-date", hex64))
	f.Add("SDK-HMAC-SHA256 Access=, SignedHeaders=, Signature=")
	f.Add("Bearer x")
	f.Fuzz(func(t *testing.T, value string) {
		a, err := signing.ParseAuthorization(value)
		if err != nil {
			require.Zero(t, a)
			return
		}
		require.Equal(t, value, a.String(), "one header has one meaning")
		require.True(t, slices.IsSorted(a.SignedHeaders))
		require.Subset(t, a.SignedHeaders, []string{"host", "x-sdk-date"})
		require.True(t, signing.ValidAccessKeyID(a.AccessKeyID))
		m := tokenRequest("h", "20240102T030405Z")
		require.Len(t, m.Signature([]byte(secretKey), a.SignedHeaders), 32)
	})
}

func FuzzCanonicalRequest(f *testing.F) {
	f.Add("/mep/token", "", []byte(nil))
	f.Add("/a%2Fb//../%zz", "b=%zz&a=1&a", []byte("{}"))
	f.Fuzz(func(t *testing.T, path, query string, body []byte) {
		m := tokenRequest("h", "20240102T030405Z")
		m.Path, m.RawQuery, m.Body = path, query, body
		lines := strings.Split(m.CanonicalRequest(usual), "\n")
		require.Len(t, lines, 9, "whatever is in the path and the query stays on its line")
		require.Regexp(t, `^(/[A-Za-z0-9%+._~-]+)*/$`, lines[1])
		require.Regexp(t, `^[A-Za-z0-9%+._~=&-]*$`, lines[2])
		require.Regexp(t, `^[0-9a-f]{64}$`, lines[8])

		m.RawQuery = lines[2]
		require.Equal(t, lines[2], part(m, 2), "a canonical query is its own canonical query")
	})
}
