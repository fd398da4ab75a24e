package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/openmep/mep/api/auth"
	"github.com/openmep/mep/api/client"
	"github.com/openmep/mep/api/signing"
)

// provision authenticates the MEPM with the credential that the platform left for it, and gives both apps their credentials.
func (s *story) provision(ctx context.Context) {
	s.step("It has made a CA, a server certificate, a key to encrypt secrets with, and the MEPM's first credential.")
	bootstrap := s.platform.file("bootstrap", "mepm.json")
	s.showFiles()
	document, err := os.ReadFile(bootstrap)
	must(err)
	s.json("operator: bootstrap/mepm.json", document)

	s.step("The MEPM (MEC platform manager) reads the file, and gets a token with OAuth2 client credentials.")
	creds, err := auth.LoadCredentials(bootstrap)
	must(err)
	s.manager = newManager(s.screen, creds)
	token, err := s.manager.tokens.Token(ctx)
	must(err)
	c, err := read(token)
	must(err)
	expect(s.manager.url == s.platform.running.URL("mm5"), "the file says that Mm5 is at %s", s.manager.url)
	expect(c.Subject == "mepm" && c.Scope == "mm5 ops", "the MEPM's token says %+v", c)

	s.step("Over Mm5, the MEPM has credentials made for the producer. This answer is the only one with the secret key.")
	keys := s.manager.provision(ctx, producerID, auth.Confs{AppInfo: auth.AppInfo{AppName: "producer"}})
	s.producer = newApp(s.screen, "producer", s.credentials(creds, producerID, keys), true)

	s.step("The consumer brings its own keys. The platform does not repeat the secret one.")
	keys = s.manager.provision(ctx, consumerID, auth.Confs{
		AuthInfo: auth.AuthInfo{Credentials: newKeys()},
		AppInfo:  auth.AppInfo{AppName: "consumer"},
	})
	s.consumer = newApp(s.screen, "consumer", s.credentials(creds, consumerID, keys), false)
}

// showFiles shows the content of the data directory, except the database, and expects secrets to be accessible only to their
// owner.
func (s *story) showFiles() {
	var lines strings.Builder
	found := make(map[string]fs.FileMode)
	root := s.platform.file()
	must(filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.Name() == "etcd":
			return fs.SkipDir
		case !d.Type().IsRegular(), strings.HasSuffix(path, "lock"):
			return nil
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		found[name] = info.Mode()
		fmt.Fprintf(&lines, "%s  %s\n", info.Mode(), filepath.Join("data", name))
		return nil
	}))
	s.text("operator: the files in data", lines.String())
	for name, mode := range map[string]fs.FileMode{
		"pki/ca.crt": 0o644, "pki/ca.key": 0o600, "pki/server.key": 0o600, "auth/seal.key": 0o600, "bootstrap/mepm.json": 0o600,
		"audit/audit.log": 0o600,
	} {
		got, ok := found[filepath.FromSlash(name)]
		expect(ok && got == mode, "%s has the mode %s, want %s", name, got, mode)
	}
}

// newKeys generates keys as a MEPM with its own vault may do.
func newKeys() auth.KeyPair {
	return auth.KeyPair{
		AccessKeyID: rand.Text()[:signing.AccessKeyIDLength],
		SecretKey:   auth.Secret((rand.Text() + rand.Text() + rand.Text())[:signing.SecretKeyLength]),
	}
}

// credentials returns what the MEPM hands to an app.
func (s *story) credentials(manager *auth.Credentials, appInstanceID string, keys auth.KeyPair) *auth.Credentials {
	return &auth.Credentials{
		AccessKeyID: keys.AccessKeyID, SecretKey: keys.SecretKey, AppInstanceID: appInstanceID, Scopes: []string{"mp1"},
		URLs: manager.URLs, CAFile: manager.CAFile,
	}
}

func (s *story) keepStrangersOut(ctx context.Context) {
	s.step("A stranger without a token gets nothing, and learns why.")
	trusting := s.watched("stranger", s.producer.client())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.platform.mp1()+"/mec_service_mgmt/v1/services", nil)
	must(err)
	resp, err := trusting.Do(req)
	must(err)
	must(resp.Body.Close())
	challenge := resp.Header.Get("WWW-Authenticate")
	expect(resp.StatusCode == http.StatusUnauthorized, "a call without a token was answered %s", resp.Status)
	expect(strings.HasPrefix(challenge, `Bearer realm="mep"`) && strings.Contains(challenge, "error_description=") &&
		strings.Contains(challenge, `scope="mp1"`), "the WWW-Authenticate is %q", challenge)
	expect(resp.TLS != nil && resp.TLS.Version >= tls.VersionTLS12, "the call was not encrypted as it should be: %+v", resp.TLS)
	s.note("%s, %s; the certificate of %s is from the CA %q", resp.Proto, tls.VersionName(resp.TLS.Version),
		strings.TrimPrefix(s.platform.mp1(), "https://"), resp.TLS.PeerCertificates[0].Issuer.CommonName)

	s.step("Who does not know the platform's CA, pki/ca.crt, does not talk to it.")
	resp, err = s.watched("stranger", &http.Client{Transport: http.DefaultTransport}).Do(req)
	if err == nil {
		must(resp.Body.Close())
	}
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	expect(unknown, "a client that does not know the CA got the error %v", err)
}

func (s *story) getTokens(ctx context.Context) {
	s.step("The producer gets its token as EdgeGallery's agents do: with a request signed with its secret key, at Mp1.")
	s.producer.token(ctx)

	s.step("The consumer gets its token with OAuth2 client credentials. From here on, both send theirs with every call.")
	s.consumer.token(ctx)
}

// trespass makes the consumer try what it is not allowed to do.
func (s *story) trespass(ctx context.Context, svc *client.Service) {
	s.step("The consumer tries to remove the producer's service. What belongs to another app is out of its reach.")
	err := s.consumer.platform.App(producerID).Remove(ctx, svc.Info.SerInstanceID)
	denied(err, http.StatusForbidden)

	s.step("It is no manager either: its token has the scope mp1, not mm5.")
	m := caller{url: s.manager.url, client: s.consumer.support.client, token: s.consumer.tokens.Token}
	m.refused(ctx, request{method: http.MethodDelete, path: confs(producerID)}, http.StatusForbidden)
}

// overlap is how long both secret keys of the producer are valid.
const overlap = 3 * time.Second

func (s *story) rotateSecretKey(ctx context.Context) {
	s.step("The MEPM has a new secret key made for the producer. The present one stays good for %s.", overlap)
	p := s.producer
	seconds := int(overlap / time.Second)
	var made auth.RotationResult
	s.manager.call(ctx, request{
		method: http.MethodPost, path: confs(producerID) + "/rotate", body: auth.Rotation{OverlapSeconds: &seconds},
	}, http.StatusOK, &made)
	expect(made.AccessKeyID == p.creds.AccessKeyID && made.SecretKey != "" && made.SecretKey != p.creds.SecretKey,
		"the rotation made %s", made.AccessKeyID)

	s.step("Until the producer has the new key, it gets tokens with the old one; then with the new one.")
	old := p.tokens
	s.newToken(ctx, p)
	p.creds.SecretKey = made.SecretKey
	p.tokens = p.source(s.watched(p.name, p.client()))
	p.token(ctx)

	s.step("After those %s the old secret key opens nothing.", overlap)
	var rec auth.ConfsRecord
	pause(ctx, time.Until(made.PreviousExpires))
	forget(ctx, old)
	_, err := old.Token(ctx)
	refused(err, http.StatusUnauthorized)
	s.manager.call(ctx, request{method: http.MethodGet, path: confs(producerID)}, http.StatusOK, &rec)
	expect(len(rec.Secrets) == 1, "the producer has %d secret keys, want 1", len(rec.Secrets))
}

// forget invalidates the token of a source.
func forget(ctx context.Context, source *auth.Source) {
	token, err := source.Token(ctx)
	must(err)
	source.Invalidate(token)
}

// newToken makes an app fetch a new token.
func (s *story) newToken(ctx context.Context, a *app) claims {
	forget(ctx, a.tokens)
	_, c := a.token(ctx)
	return c
}
