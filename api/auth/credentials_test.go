package auth_test

import (
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/auth"
)

// writeFile writes a file into a directory of the test and returns its path.
func writeFile(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

const goodFile = `{
	"accessKeyId": "` + accessKey + `", "secretKey": "` + secretKey + `", "appInstanceId": "5abe4782", "name": "mepm",
	"scopes": ["mm5", "ops"], "urls": {"auth": "https://mep.example:8443", "mm5": "https://mep.example:8089"}, "caFile": "ca.pem"
}`

func TestLoadCredentials(t *testing.T) {
	dir := t.TempDir()
	c, err := auth.LoadCredentials(writeFile(t, dir, "mepm.json", goodFile))
	require.NoError(t, err)
	require.Equal(t, &auth.Credentials{
		AccessKeyID: accessKey, SecretKey: secretKey, AppInstanceID: "5abe4782", Name: "mepm", Scopes: []string{"mm5", "ops"},
		URLs:   map[string]string{"auth": "https://mep.example:8443", "mm5": "https://mep.example:8089"},
		CAFile: filepath.Join(dir, "ca.pem"),
	}, c)

	written, err := json.Marshal(c)
	require.NoError(t, err)
	again, err := auth.LoadCredentials(writeFile(t, t.TempDir(), "copy.json", string(written)))
	require.NoError(t, err)
	require.Equal(t, c, again, "an absolute path stays, and what is written can be read")

	least, err := auth.LoadCredentials(writeFile(t, dir, "least.json", `{"accessKeyId":"`+accessKey+`","secretKey":"`+secretKey+`"}`))
	require.NoError(t, err)
	require.Empty(t, least.CAFile)
}

func TestBadCredentialsFilesAreExplained(t *testing.T) {
	for name, x := range map[string]struct{ text, reason string }{
		"empty":             {"", "ends too early"},
		"cut off":           {goodFile[:40], "ends too early"},
		"no JSON":           {"accessKeyId: x", "no JSON at byte 1"},
		"an array":          {`[]`, "the whole cannot be a JSON array"},
		"a wrong type":      {strings.Replace(goodFile, `["mm5", "ops"]`, `"mm5"`, 1), "scopes cannot be a JSON string"},
		"misspelt":          {strings.Replace(goodFile, "caFile", "caFlie", 1), `"caFlie": remove or correct it`},
		"more after it":     {goodFile + "{}", "something follows"},
		"no access key":     {strings.Replace(goodFile, accessKey, "", 1), "accessKeyId must be the 20"},
		"odd access key":    {strings.Replace(goodFile, accessKey, accessKey[1:]+"-", 1), "accessKeyId must be the 20"},
		"no secret key":     {strings.Replace(goodFile, secretKey, "", 1), "secretKey must be the 64"},
		"short secret key":  {strings.Replace(goodFile, secretKey, secretKey[1:], 1), "secretKey must be the 64"},
		"number for secret": {strings.Replace(goodFile, `"`+secretKey+`"`, "4711", 1), "secretKey cannot be a JSON number"},
		"relative URL":      {strings.Replace(goodFile, "https://mep.example:8443", "mep.example", 1), "urls.auth must be an absolute"},
		"another scheme":    {strings.Replace(goodFile, "https://mep.example:8089", "ftp://mep.example", 1), "urls.mm5 must be an absolute"},
		"URL with query":    {strings.Replace(goodFile, ":8443", ":8443?a=b", 1), "urls.auth must be a URL without"},
		"URL with user":     {strings.Replace(goodFile, "mep.example:8443", "u:pw@mep.example", 1), "urls.auth must be a URL without"},
	} {
		t.Run(name, func(t *testing.T) {
			path := writeFile(t, t.TempDir(), "mepm.json", x.text)
			c, err := auth.LoadCredentials(path)
			require.Nil(t, c)
			require.ErrorContains(t, err, "credentials file "+path)
			require.ErrorContains(t, err, x.reason)
			for _, secret := range []string{secretKey[1:], "4711", "u:pw"} {
				require.NotContains(t, err.Error(), secret)
			}
		})
	}
}

func TestACredentialsFileThatIsNotThereIsExplained(t *testing.T) {
	_, err := auth.LoadCredentials(filepath.Join(t.TempDir(), "mepm.json"))
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, "name the file that was given out")
	_, err = auth.LoadCredentials(t.TempDir())
	require.ErrorContains(t, err, "credentials file: ")
}

// tokenService is a real server that issues a token for valid requests.
func tokenService(t *testing.T, settings *tls.Config) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, secret, _ := r.BasicAuth()
		good := r.URL.Path == "/oauth2/token" && id == accessKey && secret == secretKey && r.FormValue("scope") == "mm5 ops"
		if !good {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = w.Write([]byte(`{"access_token":"real","token_type":"Bearer","expires_in":3600}`))
	}))
	server.TLS = settings
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // these tests provoke failing handshakes
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

// fileFor writes a credentials file and the certificate beside it, and reads the file.
func fileFor(t *testing.T, server *httptest.Server, caFile string) *auth.Credentials {
	t.Helper()
	dir := t.TempDir()
	writeFile(t, dir, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	writeFile(t, dir, "empty.pem", "no certificate")
	text := strings.Replace(goodFile, "https://mep.example:8443", server.URL, 1)
	c, err := auth.LoadCredentials(writeFile(t, dir, "mepm.json", strings.Replace(text, "ca.pem", caFile, 1)))
	require.NoError(t, err)
	return c
}

func TestCredentialsLeadToATokenOverTLS(t *testing.T) {
	c := fileFor(t, tokenService(t, nil), "ca.pem")
	client, err := c.HTTPClient()
	require.NoError(t, err)
	defer client.CloseIdleConnections()
	require.Equal(t, auth.DefaultTimeout, client.Timeout)
	source, err := c.Source(client)
	require.NoError(t, err)
	token, err := source.Token(t.Context())
	require.NoError(t, err)
	require.Equal(t, "real", token)
}

func TestAnUnknownCAIsNotTrusted(t *testing.T) {
	source, err := fileFor(t, tokenService(t, nil), "").Source(nil)
	require.NoError(t, err)
	_, err = source.Token(t.Context())
	var unknown *tls.CertificateVerificationError
	require.ErrorAs(t, err, &unknown)
}

func TestOldTLSIsNotSpoken(t *testing.T) {
	source, err := fileFor(t, tokenService(t, &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}), "ca.pem").Source(nil)
	require.NoError(t, err)
	_, err = source.Token(t.Context())
	require.ErrorContains(t, err, "protocol version")
}

func TestCAFilesThatCannotBeUsed(t *testing.T) {
	server := tokenService(t, nil)
	_, err := fileFor(t, server, "none.pem").Source(nil)
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = fileFor(t, server, "empty.pem").HTTPClient()
	require.ErrorContains(t, err, "empty.pem has no certificate in PEM")
}

func TestCredentialsWithoutATokenService(t *testing.T) {
	_, err := (&auth.Credentials{AccessKeyID: accessKey, SecretKey: secretKey}).Source(nil)
	require.ErrorContains(t, err, "urls.auth is missing")
}
