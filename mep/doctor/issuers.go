package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/openmep/mep/kit/identity"
	"github.com/openmep/mep/kit/pki"
)

// maxKeySet is the largest JWK set the platform reads, in bytes.
const maxKeySet = 1 << 20

// answer is the result of reading an issuer's keys.
type answer struct {
	// problem is empty if there are keys; remedy says what to do about it.
	problem, remedy string
	keys            int
	// private says that the set contains private keys, too.
	private bool
	// date is the server's time, zero if the server does not give it; at is the time here when it responded.
	date, at time.Time
	// faults are those of the issuer's CA file.
	faults []pki.Fault
}

// keysOf reads the keys of a trusted issuer from their file or URL, as the platform does.
func (x *examination) keysOf(ctx context.Context, t *identity.TrustedIssuer) answer {
	if t.JWKSFile == "" {
		return x.fetch(ctx, t)
	}
	text, err := os.ReadFile(t.JWKSFile)
	if err != nil {
		return answer{problem: "has keys in a file that cannot be read (" + err.Error() + ")", remedy: "put the file there, or correct jwksFile of the issuer"}
	}
	return judge(text)
}

// fetch reads the keys from their URL.
func (x *examination) fetch(ctx context.Context, t *identity.TrustedIssuer) (a answer) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	defer transport.CloseIdleConnections()
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, Time: x.host.now}
	if t.CAFile != "" {
		for _, fault := range pki.Check(pki.Files{CA: t.CAFile, Within: soon}, x.host.now()) {
			if a.faults = append(a.faults, fault); !fault.Warning {
				return a
			}
		}
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return a // already among the faults
		}
		transport.TLSClientConfig.RootCAs = x509.NewCertPool()
		transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.JWKSURL, nil)
	if err != nil {
		a.problem, a.remedy = "has a jwksUrl that cannot be used ("+err.Error()+")", "correct it"
		return a
	}
	resp, err := transport.RoundTrip(req) // follows no redirect, as the platform does not
	if err != nil {
		problem, remedy := way{address: "jwksUrl of the issuer", ca: "caFile of the issuer"}.explain(err)
		a.problem, a.remedy = "has keys at "+t.JWKSURL+", which "+problem, remedy
		return a
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxKeySet))
	faults, date := a.faults, time.Time{}
	if d, derr := http.ParseTime(resp.Header.Get("Date")); derr == nil {
		date = d
	}
	switch {
	case resp.StatusCode/100 == 3:
		a = answer{
			problem: fmt.Sprintf("has keys at %s, which redirects to %q; that is not followed", t.JWKSURL, resp.Header.Get("Location")),
			remedy:  "set jwksUrl of the issuer to the place itself",
		}
	case resp.StatusCode != http.StatusOK:
		a = answer{problem: fmt.Sprintf("has keys at %s, which answers %s", t.JWKSURL, resp.Status), remedy: "correct jwksUrl of the issuer"}
	case err != nil:
		a = answer{problem: fmt.Sprintf("has keys at %s, which could not be read to the end (%v)", t.JWKSURL, err), remedy: "ask again"}
	default:
		a = judge(body)
	}
	a.faults, a.date, a.at = faults, date, x.host.now()
	return a
}

// judge examines a JWK set.
func judge(text []byte) answer {
	usable, private, err := keySet(text)
	switch {
	case err != nil:
		return answer{problem: "has keys that are not a JWK set (" + err.Error() + ")", remedy: "see whether it is the right file or URL (RFC 7517 5)"}
	case usable == 0:
		return answer{problem: "has a JWK set without a key that can verify a signature", remedy: "have the public keys of its signing keys (kty EC, RSA or OKP) put there"}
	}
	return answer{keys: usable, private: private}
}

// keySet counts the keys of a JWK set (RFC 7517) that verify signatures, and reports whether the set has private ones.
func keySet(text []byte) (usable int, private bool, err error) {
	var set struct {
		Keys []struct {
			Kty, Use, D string
			N, E, X, Y  string
		}
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return 0, false, errors.New("it is no JSON object with the member keys")
	}
	for _, k := range set.Keys {
		private = private || k.D != ""
		var parts []string
		switch k.Kty {
		case "RSA":
			parts = []string{k.N, k.E}
		case "EC":
			parts = []string{k.X, k.Y}
		case "OKP":
			parts = []string{k.X}
		default:
			continue
		}
		if k.Use != "enc" && encoded(parts) {
			usable++
		}
	}
	return usable, private, nil
}

// encoded reports whether all parts of a key are present, in base64url.
func encoded(parts []string) bool {
	for _, p := range parts {
		if b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(p, "=")); err != nil || len(b) == 0 {
			return false
		}
	}
	return true
}

// issuer reports the result of reading the keys of a trusted issuer.
func (x *examination) issuer(f *findings, i int) {
	name, a := x.Common.Identity.Issuers[i].Issuer, x.issuers[i]()
	f.faults(a.faults)
	switch {
	case a.problem != "":
		f.fail(name, a.problem, a.remedy)
	case a.private:
		f.fail(name, "has published its private keys with the public ones: whoever reads them can sign tokens", "have it make new keys, and publish the public parts only")
	case a.keys > 0:
		f.ok(name, fmt.Sprintf("has %d keys its tokens are verified with", a.keys))
	}
}
