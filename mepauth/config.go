// Package mepauth is the MEC platform's token service: it exchanges access keys for JWTs, and lets the MEC platform manager provision
// access keys.
package mepauth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/kit/daemon"
	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/kit/identity"
	"github.com/openmep/mep/mepauth/grant"
	"github.com/openmep/mep/mepauth/keyring"
	"github.com/openmep/mep/mepauth/lockout"
)

// Config holds the settings of the token service.
type Config struct {
	Listen    string `name:"auth.listen" default:":10443" usage:"address of the token service"`
	PublicURL string `name:"auth.publicUrl" usage:"URL at which clients reach the token service (default: https, the host's name and the port of the listener)"`
	Issuer    string `name:"auth.issuer" usage:"issuer (claim iss) of the tokens, a URL (default: auth.publicUrl)"`
	KeyFile   string `name:"auth.keyFile" usage:"file with the key that secrets in etcd are encrypted with, the same for all replicas; default: auth/seal.key in the data directory, made at the first start"`

	TokenLifetime   time.Duration `name:"auth.tokenLifetime" default:"1h" reload:"true" usage:"how long tokens are good, 1m to 24h"`
	RefreshLifetime time.Duration `name:"auth.refreshLifetime" default:"24h" reload:"true" usage:"how long a refresh token that is not used is good, 1m to 720h"`
	SignatureWindow time.Duration `name:"auth.signatureWindow" default:"15m" reload:"true" usage:"how far the date of a signed request may be from the present time; 0s: any date, for agents that sign with local time"`
	SecretOverlap   time.Duration `name:"auth.secretOverlap" default:"24h" reload:"true" usage:"how long the previous secret key stays good after a rotation that does not say"`

	Algorithm   string        `name:"auth.algorithm" default:"ES256" reload:"true" usage:"what new signing keys sign with: ES256, RS256, RS512, EdDSA"`
	RotateAfter time.Duration `name:"auth.keys.rotateAfter" default:"720h" reload:"true" usage:"age at which a signing key gets a successor; 0s: never by itself"`
	KeyDelay    time.Duration `name:"auth.keys.notBefore" default:"5m" reload:"true" usage:"how long a signing key is published before it signs"`

	LockFailures    int           `name:"auth.lockout.failures" default:"3" reload:"true" usage:"failures that lock an access key for the address they came from"`
	LockKeyFailures int           `name:"auth.lockout.keyFailures" default:"20" reload:"true" usage:"failures from all addresses together that lock it for those it was not used from with success before"`
	LockWindow      time.Duration `name:"auth.lockout.window" default:"5m" reload:"true" usage:"time within which failures are counted"`
	LockDuration    time.Duration `name:"auth.lockout.duration" default:"15m" reload:"true" usage:"how long a lock lasts"`

	SourceRate  int `name:"auth.rate.source" default:"20" reload:"true" usage:"requests for tokens a second for each client address; 0: no limit"`
	SourceBurst int `name:"auth.rate.sourceBurst" default:"100" reload:"true" usage:"requests for tokens a client address may make at once"`
	KeyRate     int `name:"auth.rate.key" default:"5" reload:"true" usage:"requests for tokens a second for each access key; 0: no limit"`
	FailureRate int `name:"auth.rate.failures" default:"200" reload:"true" usage:"wrong secrets and signatures a second from all addresses together; over it only those are heard who used the access key from the same address before; 0: no limit"`
	KeyBurst    int `name:"auth.rate.keyBurst" default:"30" reload:"true" usage:"requests for tokens an access key may be used for at once"`

	// ServiceDomain is the setting gateway.serviceDomain, set by programs that also contain the gateway, which checks it; ""
	// elsewhere.
	ServiceDomain string
}

// Validate checks the settings.
func (c *Config) Validate(common *daemon.Config) error {
	var faults []error
	bad := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if _, err := common.Listen("auth.listen", c.Listen); err != nil {
		faults = append(faults, err)
	}
	for name, v := range map[string]string{"auth.publicUrl": c.PublicURL, "auth.issuer": c.Issuer} {
		if v == "" {
			continue
		}
		u, err := url.Parse(v)
		switch {
		case err != nil, u.Host == "", u.Scheme != "https" && u.Scheme != "http", u.RawQuery != "", u.Fragment != "":
			bad("%s: %q is not an absolute http or https URL without query and fragment", name, v)
		case u.Scheme != "https" && !common.Dev:
			bad("%s: %q must be https (RFC 8414 2)", name, v)
		}
		faults = append(faults, gateway.CheckOutside(name, v, c.ServiceDomain))
	}
	if !slices.Contains(identity.Algorithms, c.Algorithm) {
		bad("auth.algorithm: %q is not one of %s", c.Algorithm, strings.Join(identity.Algorithms, ", "))
	}
	for _, b := range []struct {
		name          string
		d, least, max time.Duration
	}{
		{"auth.tokenLifetime", c.TokenLifetime, time.Minute, 24 * time.Hour},
		{"auth.refreshLifetime", c.RefreshLifetime, time.Minute, 720 * time.Hour},
		{"auth.signatureWindow", c.SignatureWindow, 0, 24 * time.Hour},
		{"auth.secretOverlap", c.SecretOverlap, 0, 720 * time.Hour},
		{"auth.keys.rotateAfter", c.RotateAfter, 0, 10 * 365 * 24 * time.Hour},
		{"auth.keys.notBefore", c.KeyDelay, 0, 24 * time.Hour},
		{"auth.lockout.window", c.LockWindow, time.Second, 24 * time.Hour},
		{"auth.lockout.duration", c.LockDuration, time.Second, 24 * time.Hour},
	} {
		if b.d < b.least || b.d > b.max {
			bad("%s must be %s to %s, not %s", b.name, b.least, b.max, b.d)
		}
	}
	if c.RotateAfter > 0 && c.RotateAfter < 2*c.KeyDelay+time.Second {
		bad("auth.keys.rotateAfter (%s) must be more than twice auth.keys.notBefore (%s), or 0s", c.RotateAfter, c.KeyDelay)
	}
	for name, n := range map[string]int{
		"auth.lockout.failures": c.LockFailures, "auth.lockout.keyFailures": c.LockKeyFailures,
		"auth.rate.sourceBurst": c.SourceBurst, "auth.rate.keyBurst": c.KeyBurst,
	} {
		if n < 1 {
			bad("%s must be at least 1, not %d", name, n)
		}
	}
	if c.LockKeyFailures > lockout.MaxKeyFailures {
		bad("auth.lockout.keyFailures must be at most %d, not %d", lockout.MaxKeyFailures, c.LockKeyFailures)
	}
	for name, n := range map[string]int{
		"auth.rate.source": c.SourceRate, "auth.rate.key": c.KeyRate, "auth.rate.failures": c.FailureRate,
	} {
		if n < 0 {
			bad("%s must not be negative", name)
		}
	}
	return errors.Join(faults...)
}

// SealFile returns the path of the file with the key that encrypts secrets.
func (c *Config) SealFile(common *daemon.Config) string {
	return cmp.Or(c.KeyFile, filepath.Join(common.DataDir, "auth", "seal.key"))
}

// clockMargin is how long a signing key is kept after its last token has expired, to allow for clock differences.
const clockMargin = 5 * time.Minute

// KeyPolicy returns the policy for signing keys.
func (c *Config) KeyPolicy() keyring.Policy {
	return keyring.Policy{
		Algorithm: c.Algorithm, RotateAfter: c.RotateAfter, Delay: c.KeyDelay, Verify: c.TokenLifetime + clockMargin,
	}
}

// policies are the settings in the form the packages need. They are replaced as a whole on reload.
type policies struct {
	grant    grant.Policy
	keys     keyring.Policy
	lockout  lockout.Policy
	refresh  time.Duration
	overlap  time.Duration
	limits   httpx.Limits
	settings *Config
}

// maxBody is the largest body of a request to the token service, in bytes.
const maxBody = 64 << 10

func (c *Config) policies(issuer, audience string) *policies {
	return &policies{
		grant: grant.Policy{
			Issuer: issuer, Audience: audience, Lifetime: c.TokenLifetime, SignatureWindow: c.SignatureWindow,
		},
		keys: c.KeyPolicy(),
		lockout: lockout.Policy{
			Failures: c.LockFailures, KeyFailures: c.LockKeyFailures, Window: c.LockWindow, Duration: c.LockDuration,
		},
		refresh: c.RefreshLifetime, overlap: c.SecretOverlap, limits: httpx.Limits{Body: maxBody}.WithDefaults(), settings: c,
	}
}

// publicURL returns the URL at which clients reach a listener: the configured one, or the listener's own, with the host name in place
// of an unspecified address.
func publicURL(configured, listen string, srv *httpx.Server) string {
	if configured != "" {
		return strings.TrimSuffix(configured, "/")
	}
	host, _, err := net.SplitHostPort(listen)
	if err != nil || host != "" {
		return srv.URL()
	}
	name, err := os.Hostname()
	if err != nil || !srv.Addr().IP.IsUnspecified() {
		return srv.URL()
	}
	// A name that cannot be resolved even here is no better than an address. The lookup is short, because the DNS server may be that
	// of this platform, which does not answer yet.
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if _, err := net.DefaultResolver.LookupHost(ctx, name); err != nil {
		return srv.URL()
	}
	u, err := url.Parse(srv.URL())
	if err != nil {
		return srv.URL()
	}
	u.Host = net.JoinHostPort(name, u.Port())
	return u.String()
}
