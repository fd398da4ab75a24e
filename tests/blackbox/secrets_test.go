package blackbox

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/kit/etcdtest"
	"github.com/openmep/mep/tests/harness"
)

// secrets collects what must be nowhere to be read.
type secrets map[string]string // what it is, by the text

func (s secrets) add(what string, texts ...string) {
	for _, text := range texts {
		if len(text) >= 16 { // what is shorter is found by chance
			s[text] = what
		}
	}
}

// S-10: whoever reads the log cannot act as anybody.
func TestNoSecretIsEverWrittenDown(t *testing.T) {
	t.Parallel()
	hidden := make(secrets)
	i := newIssuer(t)
	etcd := etcdtest.Start(t)
	config := i.trusting(t, "log: {level: debug}\n")
	auth := harness.StartMepauth(t, etcd.Endpoint(), harness.Secure(), config, generous(), patient())
	server := harness.StartMepserver(t, etcd.Endpoint(), harness.Secure(), config)
	c, manager := auth.Auth(t), auth.Manager(t)
	first := auth.Bootstrap(t).Keys
	hidden.add("secret key of the manager", first.SecretKey)
	token := func(k harness.Keys) harness.Token {
		got := k.Fetch(c)
		hidden.add("token", got.AccessToken, strings.Split(got.AccessToken, ".")[2])
		hidden.add("refresh token", got.RefreshToken)
		return got
	}
	basic := func(k harness.Keys) string {
		v := base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(k.AccessKeyID) + ":" + url.QueryEscape(k.SecretKey)))
		hidden.add("Basic", v)
		return v
	}
	token(first)
	basic(first)
	keys := refreshing(t, auth)
	hidden.add("secret key", keys.SecretKey)
	basic(keys)
	got := token(keys)
	next := refreshed(c, keys, got.RefreshToken)
	hidden.add("token", next.AccessToken)
	hidden.add("refresh token", next.RefreshToken)
	signature{Keys: keys}.ask(c).Is(200)

	path := harness.ConfsPath(keys.AppInstanceID)
	given := characters(64)
	hidden.add("given secret key", given)
	manager.Post(path+"/rotate", object{"secretKey": given}).Is(200)
	made := manager.Post(path+"/rotate", object{"overlapSeconds": 60}).Is(200).Object()["secretKey"].(string)
	hidden.add("generated secret key", made)
	keys.SecretKey = made

	// Secrets in places where they do not belong.
	for _, body := range []string{
		`{"authInfo":{"credentials":{"accessKeyId":"` + made + `"}}}`, `{"authInfo":{"credentials":{"secretKey":"` + made + `!"}}}`,
		`{"authInfo":{"credentials":"` + made + `"}}`, `{"authInfo":{"credentials":{"secretKey":["` + made + `"]}}}`, `"` + made + `"`, made, "{" + made,
		`{"` + made + `":1}`, `{"authInfo":{"credentials":{"secretKey":"` + made + `"}}`, `{"appInfo":{"requiredServices":["` + made + `",""]}}`,
	} {
		answer := manager.Put(path, body)
		if answer.Status != 200 {
			require.NotContains(t, string(answer.Body), made, body)
		}
	}
	manager.Put(path, confs(keys)).Is(200)
	mp1, plain := server.Unchecked(t), auth.Unchecked(t)
	jwtOfOthers := i.sign(t, jwt.SigningMethodES256, i.ec, i.good(uuid.NewString()), object{"kid": "ec"})
	hidden.add("token of another issuer", jwtOfOthers, strings.Split(jwtOfOthers, ".")[2])
	badKid := i.sign(t, jwt.SigningMethodES256, i.ec, i.good(uuid.NewString()), object{"kid": "nobody"})
	hidden.add("token with a bad kid", badKid)
	last := token(keys)
	for _, value := range []string{
		"Bearer " + last.AccessToken, "Bearer " + jwtOfOthers, "Bearer " + badKid, "bearer  " + last.AccessToken + " x", "Basic " + basic(keys), last.AccessToken,
		"Token " + made, "Bearer " + made, "Bearer " + last.AccessToken[:len(last.AccessToken)-3], "Bearer " + last.RefreshToken,
		"SDK-HMAC-SHA256 Access=" + keys.AccessKeyID + ", SignedHeaders=host, Signature=" + made, "Basic " + made,
	} {
		mp1.Get(services, harness.Header("Authorization", value))
		c.Post("/oauth2/token", "grant_type=client_credentials", harness.AsForm(), harness.Header("Authorization", value))
		c.Post("/mep/token", nil, harness.Header("Authorization", value), harness.Header("X-Sdk-Date", made))
		auth.Auth(t).Get(path, harness.Header("Authorization", value))
	}
	for _, query := range []string{"?jwt=" + last.AccessToken, "?access_token=" + last.AccessToken, "?client_secret=" + made, "?" + made, "?" + last.AccessToken} {
		mp1.With(last.AccessToken).Get(services + query)
		mp1.Get(services + query)
		c.Post("/oauth2/token"+query, "grant_type=client_credentials", harness.AsForm())
		manager.Get(path + query)
		manager.Get("/mep/appMng/v1/applications" + query)
		plain.Get(auth.URL("auth") + "/.well-known/jwks.json" + query)
	}
	for _, form := range []string{
		credentialsIn(keys, "grant_type", "client_credentials"), credentialsIn(keys, "grant_type", made), credentialsIn(keys, "scope", made, "grant_type", "client_credentials"),
		made + "=" + made + "&" + made + "=" + made, "grant_type=refresh_token&refresh_token=" + last.RefreshToken, "client_secret=%zz" + made,
		credentialsIn(harness.Keys{AccessKeyID: made, SecretKey: made}, "grant_type", "client_credentials"),
		credentialsIn(harness.Keys{AccessKeyID: keys.SecretKey[:20], SecretKey: made}, "grant_type", "client_credentials"),
	} {
		c.Post("/oauth2/token", form, harness.AsForm())
	}
	hidden.add("the first of a secret key", keys.SecretKey[:24])
	for _, what := range []string{last.AccessToken, last.RefreshToken, made} {
		c.Post("/oauth2/introspect", harness.Form("token", what), harness.AsForm(), keys.Basic())
		c.Post("/oauth2/revoke", harness.Form("token", what, "token_type_hint", made), harness.AsForm(), keys.Basic())
	}
	outputs := ""
	for _, args := range [][]string{
		{"credentials", "list"}, {"keys", "list"}, {"keys", "rotate"}, {"credentials", "disable", keys.AccessKeyID}, {"credentials", "delete", keys.AccessKeyID},
		{"credentials", "create", "--app-instance-id", "new", "--secret-key-file", file(t, "secret", made+"x")}, {"credentials", "delete", made},
	} {
		outputs += harness.Run(t, "mep", append(args, "--etcd-endpoints", etcd.Endpoint(), "--data-dir", auth.DataDir)).Output
	}
	auth.Hangup()
	auth.Kill()
	auth.Restart()
	auth.Stop()
	server.Stop()

	hidden.add("seal key", strings.TrimSpace(string(written(t, filepath.Join(auth.DataDir, "auth", "seal.key")))))
	for _, p := range []*harness.Process{auth, server} {
		for _, name := range []string{"ca.key", "server.key"} {
			block, _ := pem.Decode(written(t, filepath.Join(p.DataDir, "pki", name)))
			require.NotNil(t, block)
			hidden.add(name, strings.Split(string(written(t, filepath.Join(p.DataDir, "pki", name))), "\n")[1])
			key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			require.NoError(t, err)
			require.NotNil(t, key)
		}
	}
	require.Greater(t, len(hidden), 20)
	look := func(where, text string) {
		for secret, what := range hidden {
			if before, after, found := strings.Cut(text, secret); found {
				before = before[strings.LastIndexByte(before, '\n')+1:]
				after, _, _ = strings.Cut(after, "\n")
				t.Errorf("%s has a secret (%s): %s%s%s", where, what, before, secret, after)
			}
		}
	}
	look("the output of commands", outputs)
	for name, p := range map[string]*harness.Process{"mepauth": auth, "mepserver": server} {
		log := p.AllLogs()
		require.Contains(t, log, "level=DEBUG", "the log is one of level debug")
		look("the log of "+name, log)
		own := map[string]bool{"auth/seal.key": true, "pki/ca.key": true, "pki/server.key": true, "bootstrap/mepm.json": true}
		err := filepath.WalkDir(p.DataDir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			rel, err := filepath.Rel(p.DataDir, path)
			if err != nil || own[rel] {
				return err
			}
			data, err := os.ReadFile(path)
			look(rel+" of "+name, string(data))
			return err
		})
		require.NoError(t, err)
	}
	everything, err := etcd.Client(t).Get(t.Context(), "", clientv3.WithPrefix())
	require.NoError(t, err)
	require.NotEmpty(t, everything.Kvs)
	for _, kv := range everything.Kvs {
		look("the database at "+string(kv.Key), string(kv.Key)+"\n"+string(kv.Value))
		decoded, err := base64.StdEncoding.DecodeString(string(kv.Value))
		if err == nil {
			look("the database at "+string(kv.Key), string(decoded))
		}
	}
}
