package protect_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/dnsagent/protect"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	require.NoError(t, err)
	return b
}

func secret(t testing.TB, s string) protect.Secret {
	t.Helper()
	return protect.Secret(unhex(t, s))
}

// TestVectorsOfRFC9018 has the test vectors of appendix A.
func TestVectorsOfRFC9018(t *testing.T) {
	const first = "e5e973e5a6b2a43f48e7dc849e37bfcf"
	for name, c := range map[string]struct {
		secret, previous, client, query string
		checked                         int64
		verdict                         protect.Verdict
		answered                        int64
		answer                          string
	}{
		"A.1 learning a server cookie": {
			first, "", "198.51.100.100", "2464c4abcf10c957", 1559731985, protect.CookieClientOnly,
			1559731985, "2464c4abcf10c957010000005cf79f111f8130c3eee29480",
		},
		"A.2 learning a renewed one": {
			first, "", "198.51.100.100", "2464c4abcf10c957010000005cf79f111f8130c3eee29480", 1559734385, protect.CookieRenew,
			1559734385, "2464c4abcf10c957010000005cf7a871d4a564a1442aca77",
		},
		// The response is made 1 h 51 min after the cookie of the query, which is too old by section 4.3. When new, the cookie
		// was good: its reserved octets are hashed.
		"A.3 another client": {
			first, "", "203.0.113.203", "fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5", 1559727985, protect.CookieValid,
			1559734700, "fc93fc62807ddb86010000005cf7a9acf73a7810aca2381e",
		},
		"A.3 another client, too late": {
			first, "", "203.0.113.203", "fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5", 1559734700, protect.CookieBad,
			1559734700, "fc93fc62807ddb86010000005cf7a9acf73a7810aca2381e",
		},
		"A.4 IPv6, and a previous secret": {
			"445536bcd2513298075a5d379663c962", "dd3bdf9344b678b185a6f5cb60fca715", "2001:db8:220:1:59de:d0f4:8769:82b8",
			"22681ab97d52c298010000005cf7c57926556bd0934c72f8", 1559741961, protect.CookieRenew,
			1559741961, "22681ab97d52c298010000005cf7c609a6bb79d16625507a",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var previous []protect.Secret
			if c.previous != "" {
				previous = append(previous, secret(t, c.previous))
			}
			cookies := protect.NewCookies(secret(t, c.secret), previous...)
			client, now, query := netip.MustParseAddr(c.client), time.Unix(c.answered, 0), unhex(t, c.query)
			require.Equal(t, c.verdict, cookies.Check(query, client, time.Unix(c.checked, 0)))
			answer := cookies.Append(nil, query[:protect.ClientCookieSize], client, now)
			require.Equal(t, c.answer, hex.EncodeToString(answer))
			require.Equal(t, protect.CookieValid, cookies.Check(answer, client, now))
		})
	}
}

func TestWhatACookieIsWorth(t *testing.T) {
	made, now := protect.NewCookies(protect.Secret{1}), time.Unix(1<<31, 0)
	client := netip.MustParseAddr("192.0.2.1")
	good := made.Append(nil, []byte("8 octets"), client, now)
	require.Len(t, good, protect.CookieSize)
	changed := func(i int) []byte {
		c := append([]byte(nil), good...)
		c[i] ^= 1
		return c
	}
	other := protect.NewCookies(protect.Secret{2}, protect.Secret{1})
	for name, c := range map[string]struct {
		cookies *protect.Cookies
		option  []byte
		client  string
		after   time.Duration
		want    protect.Verdict
	}{
		"none":                      {made, nil, "192.0.2.1", 0, protect.CookieNone},
		"empty":                     {made, []byte{}, "192.0.2.1", 0, protect.CookieMalformed},
		"too short":                 {made, good[:7], "192.0.2.1", 0, protect.CookieMalformed},
		"the client's":              {made, good[:8], "192.0.2.1", 0, protect.CookieClientOnly},
		"the server's too short":    {made, good[:15], "192.0.2.1", 0, protect.CookieMalformed},
		"another server's, short":   {made, good[:16], "192.0.2.1", 0, protect.CookieBad},
		"another server's, long":    {made, make([]byte, 40), "192.0.2.1", 0, protect.CookieBad},
		"too long":                  {made, make([]byte, 41), "192.0.2.1", 0, protect.CookieMalformed},
		"good":                      {made, good, "192.0.2.1", 0, protect.CookieValid},
		"good, mapped":              {made, good, "::ffff:192.0.2.1", 0, protect.CookieValid},
		"of another client":         {made, good, "192.0.2.2", 0, protect.CookieBad},
		"of another client cookie":  {made, changed(0), "192.0.2.1", 0, protect.CookieBad},
		"of another version":        {made, changed(8), "192.0.2.1", 0, protect.CookieBad},
		"with other reserved":       {made, changed(9), "192.0.2.1", 0, protect.CookieBad},
		"with another time":         {made, changed(15), "192.0.2.1", 0, protect.CookieBad},
		"with another hash":         {made, changed(23), "192.0.2.1", 0, protect.CookieBad},
		"half an hour old":          {made, good, "192.0.2.1", 30 * time.Minute, protect.CookieValid},
		"older":                     {made, good, "192.0.2.1", 30*time.Minute + time.Second, protect.CookieRenew},
		"an hour old":               {made, good, "192.0.2.1", time.Hour, protect.CookieRenew},
		"too old":                   {made, good, "192.0.2.1", time.Hour + time.Second, protect.CookieBad},
		"ahead":                     {made, good, "192.0.2.1", -5 * time.Minute, protect.CookieValid},
		"too far ahead":             {made, good, "192.0.2.1", -5*time.Minute - time.Second, protect.CookieBad},
		"so old that time goes on":  {made, good, "192.0.2.1", 1 << 32 * time.Second, protect.CookieValid},
		"of the previous secret":    {other, good, "192.0.2.1", 0, protect.CookieRenew},
		"of a secret no longer had": {protect.NewCookies(protect.Secret{2}), good, "192.0.2.1", 0, protect.CookieBad},
	} {
		t.Run(name, func(t *testing.T) {
			got := c.cookies.Check(c.option, netip.MustParseAddr(c.client), now.Add(c.after))
			require.Equal(t, c.want, got)
			require.Equal(t, got == protect.CookieValid || got == protect.CookieRenew, got.Genuine())
		})
	}
}

func TestCookiesAllocateNothing(t *testing.T) {
	cookies := protect.NewCookies(protect.RandomSecret(), protect.RandomSecret())
	client, now, buf := netip.MustParseAddr("2001:db8::1"), time.Now(), make([]byte, 0, protect.CookieSize)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		cookie := cookies.Append(buf, []byte("8 octets"), client, now)
		if cookies.Check(cookie, client, now) != protect.CookieValid {
			t.Error("a cookie just made is not valid")
		}
	}))
}

// FuzzCheck checks that no cookie is accepted that was not made by the server.
func FuzzCheck(f *testing.F) {
	cookies, now := protect.NewCookies(protect.RandomSecret()), time.Now()
	client := netip.MustParseAddr("192.0.2.1")
	f.Add(cookies.Append(nil, []byte("8 octets"), client, now)[:23])
	f.Add([]byte("8 octets"))
	f.Fuzz(func(t *testing.T, option []byte) {
		require.False(t, cookies.Check(option, client, now).Genuine())
	})
}

func TestSecretsOfAFile(t *testing.T) {
	const a, b = "000102030405060708090a0b0c0d0e0f", "E5E973E5A6B2A43F48E7DC849E37BFCF"
	for name, c := range map[string]struct {
		file     string
		previous []string
		fails    bool
	}{
		"one":                   {file: a},
		"one and a line's end":  {file: a + "\n"},
		"two":                   {file: a + "\n" + b + "\n", previous: []string{b}},
		"two as in other files": {file: "# current\r\n " + a + "\r\n\r\n# previous\r\n" + b, previous: []string{b}},
		"three":                 {file: a + "\n" + b + "\n" + a, fails: true},
		"none":                  {file: "\n", fails: true},
		"too short":             {file: a[2:], fails: true},
		"too long":              {file: a + "00", fails: true},
		"no digits":             {file: "x" + a[1:], fails: true},
		"something else":        {file: strings.Repeat("\n", 5000) + a, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "secret")
			require.NoError(t, os.WriteFile(path, []byte(c.file), 0o600))
			current, previous, err := protect.LoadSecret(path)
			if c.fails {
				require.ErrorContains(t, err, path)
				require.NotContains(t, err.Error(), a[2:], "the error does not show it")
				return
			}
			require.NoError(t, err)
			require.Equal(t, secret(t, a), current)
			require.Len(t, previous, len(c.previous))
			for i, p := range c.previous {
				require.Equal(t, secret(t, p), previous[i])
			}
		})
	}
	_, _, err := protect.LoadSecret(t.TempDir())
	require.Error(t, err)
	_, _, err = protect.LoadSecret(filepath.Join(t.TempDir(), "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestASecretDoesNotShowItself(t *testing.T) {
	s := protect.Secret{0xab, 0xab, 0xab}
	js, err := json.Marshal(s)
	require.NoError(t, err)
	shown := fmt.Sprintf("%v %+v %#v %s %x %X %d %q %v %#v", s, s, s, s, s, s, s, s, []protect.Secret{s}, struct{ S protect.Secret }{s}) + string(js)
	for _, form := range []string{"ab", "AB", "171", "«"} {
		require.NotContains(t, shown, form)
	}
	another := protect.RandomSecret()
	require.NotEqual(t, protect.RandomSecret(), another)
}

func BenchmarkCookies(b *testing.B) {
	cookies := protect.NewCookies(protect.RandomSecret())
	client, now := netip.MustParseAddr("192.0.2.1"), time.Now()
	cookie := cookies.Append(nil, []byte("8 octets"), client, now)
	b.ReportAllocs()
	for b.Loop() {
		cookies.Check(cookie, client, now)
	}
}
