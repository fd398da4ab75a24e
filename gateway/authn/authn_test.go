package authn_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/gateway/authn"
	"github.com/openmep/mep/gateway/call"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/identity"
)

// keys returns an authenticator that knows one key, which is valid for the service "s".
func keys(header, query string) *authn.Authenticator {
	return &authn.Authenticator{
		Guard: new(identity.Guard), Header: header, Query: query,
		Key: func(key string) (*identity.Caller, []string, error) {
			if key != "good=1" {
				return nil, nil, errs.New(errs.Unauthenticated, "unknown")
			}
			return &identity.Caller{Subject: "me", Via: "apiKey", Scopes: []string{"mp1"}}, []string{"s"}, nil
		},
	}
}

func TestKeysAreTakenOut(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		query, rest string
		fields      []string
		who         string
		several     bool
		refused     bool
	}{
		"in the header":                      {fields: []string{"good=1"}, who: "me"},
		"in the query":                       {query: "key=good%3D1", who: "me"},
		"in the query, plainly":              {query: "key=good=1", who: "me"},
		"in the midst of a query":            {query: "a=%2f&key=good=1&b=+;&c&&d=%zz", rest: "a=%2f&b=+;&c&&d=%zz", who: "me"},
		"its name is encoded":                {query: "a&%6b%65y=good=1", rest: "a", who: "me"},
		"another name":                       {query: "monkey=good=1&Key=good=1&key%20=1", rest: "monkey=good=1&Key=good=1&key%20=1"},
		"within a value":                     {query: "a=key=good=1", rest: "a=key=good=1"},
		"twice in the header":                {fields: []string{"good=1", "good=1"}, refused: true, several: true},
		"twice in the query":                 {query: "key=good=1&key=good=1", refused: true, several: true},
		"in both":                            {query: "key=good=1", fields: []string{"good=1"}, refused: true, several: true},
		"empty in the header":                {fields: []string{""}, refused: true},
		"empty in the query":                 {query: "key=", refused: true},
		"without a value":                    {query: "key", refused: true},
		"wrong":                              {fields: []string{"bad"}, refused: true},
		"several in one field":               {fields: []string{"good=1, good=1"}, refused: true},
		"none":                               {query: "a=1", rest: "a=1"},
		"no query":                           {},
		"an encoding in the value that isnt": {query: "key=%zz", refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.URL.RawQuery = c.query
			if c.fields != nil {
				r.Header["X-Key"] = c.fields
			}
			k := new(call.Call)
			err := keys("X-Key", "key").Identify(k, r, authn.Methods{Key: true, Anonymous: true})
			require.Empty(t, r.Header, "nothing behind the gateway may use it again")
			if c.refused {
				require.Error(t, err)
				require.Nil(t, k.Caller)
				if c.several {
					require.Equal(t, "invalid_request", err.(*identity.Refusal).Code) //nolint:errorlint,forcetypeassert // it is one
				}
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.rest, r.URL.RawQuery)
			require.Equal(t, c.who, k.Info.Consumer)
			if c.who != "" {
				require.Equal(t, []string{"s"}, k.Services)
				require.Equal(t, "apiKey", k.Info.Via)
				require.Equal(t, []string{"mp1"}, k.Info.Scopes)
			}
		})
	}
}

// TestTheRestOfAQueryStays inserts a key into an arbitrary query.
func TestTheRestOfAQueryStays(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		parts := rapid.SliceOfN(rapid.StringMatching(`[a-c=%;+/?.~ü-]{0,6}`), 0, 5).Draw(rt, "parts")
		at := rapid.IntRange(0, len(parts)).Draw(rt, "at")
		with := append(append(append([]string(nil), parts[:at]...), "key="+url.QueryEscape("good=1")), parts[at:]...)
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.URL.RawQuery = strings.Join(with, "&")
		k := new(call.Call)
		require.NoError(rt, keys("", "key").Identify(k, r, authn.Methods{Key: true}))
		require.Equal(rt, strings.Join(parts, "&"), r.URL.RawQuery)
		require.Equal(rt, "me", k.Info.Consumer)
	})
}

func TestWaysToProveWhoOneIs(t *testing.T) {
	t.Parallel()
	open, shut := &authn.Authenticator{Open: true}, &authn.Authenticator{}
	require.Equal(t, authn.Methods{Token: true, Key: true, Certificate: true}, shut.MethodsOf(&gateway.Policy{}))
	require.Equal(t, authn.Methods{Token: true, Key: true, Certificate: true, Anonymous: true}, open.MethodsOf(&gateway.Policy{}))
	for _, a := range []*authn.Authenticator{open, shut} {
		require.Equal(t, authn.Methods{Token: true}, a.MethodsOf(&gateway.Policy{Authentication: []gateway.Method{gateway.ByToken}}), "also in development")
		require.Equal(t, authn.Methods{Key: true, Certificate: true}, a.MethodsOf(&gateway.Policy{Authentication: []gateway.Method{gateway.ByAPIKey, gateway.ByCertificate}}))
		require.True(t, a.MethodsOf(&gateway.Policy{Authentication: []gateway.Method{gateway.Anonymous}}).Anonymous)
	}
}

func TestWhatIsMissingIsSaid(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		header, query string
		methods       authn.Methods
		says, not     string
	}{
		"a token":           {"X-Key", "key", authn.Methods{Token: true}, "Authorization: Bearer TOKEN", "API key"},
		"a key in a header": {"X-Key", "key", authn.Methods{Key: true}, "x-key: KEY", "TOKEN"},
		"a key in a query":  {"", "key", authn.Methods{Key: true}, "query parameter key", "TOKEN"},
		"a token or a key":  {"X-Key", "", authn.Methods{Token: true, Key: true}, "Bearer TOKEN, or an API key as x-key: KEY", "certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			err := keys(c.header, c.query).Identify(new(call.Call), httptest.NewRequest(http.MethodGet, "/", nil), c.methods)
			require.ErrorContains(t, err, c.says)
			require.NotContains(t, err.Error(), c.not)
			_, refused := err.(*identity.Refusal) //nolint:errorlint // it is one
			require.True(t, refused)
		})
	}
}
