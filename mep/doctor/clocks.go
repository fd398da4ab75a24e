package doctor

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"path/filepath"
	"time"
)

// ownClock is how far the clock of a platform on this machine may differ; the header field Date has whole seconds.
const ownClock = 2 * time.Second

// clocks checks the clock of this machine, on which the lifetimes of tokens and certificates and the dates of signatures depend.
func (x *examination) clocks(ctx context.Context, f *findings) {
	x.synchronised(f)
	x.past(f)
	if x.answers() {
		x.compareOwn(ctx, f)
	}
	for i := range x.Common.Identity.Issuers {
		issuer := &x.Common.Identity.Issuers[i]
		if issuer.JWKSURL == "" {
			continue
		}
		if a := x.issuers[i](); !a.date.IsZero() {
			x.compare(f, issuer.JWKSURL, a.date, a.at, max(ownClock, x.Common.Identity.Leeway))
		}
	}
}

func (x *examination) synchronised(f *findings) {
	const subject = "the clock"
	switch synchronised, err := x.host.clock(); {
	case err != nil:
		f.note(subject, "of this machine cannot be asked whether it is synchronised ("+err.Error()+")")
	case !synchronised:
		f.warn(subject, "of this machine is not synchronised, says the kernel",
			"run chrony, systemd-timesyncd (timedatectl set-ntp true) or another client of NTP, on the host if this is a container")
	default:
		f.ok(subject, "of this machine is synchronised, says the kernel")
	}
}

// past compares the clock with times that have passed.
func (x *examination) past(f *findings) {
	now := x.host.now()
	latest, what := x.host.built, "this program was built from sources of that time"
	if !x.Common.Dev && x.Common.TLSCert == "" {
		for _, name := range []string{"ca.crt", "server.crt"} {
			file := filepath.Join(x.Common.PKIDir(), name)
			if cert := firstOf(file); cert != nil && cert.NotBefore.After(latest) {
				latest, what = cert.NotBefore, file+" was issued then"
			}
		}
	}
	if now.Before(latest) {
		f.fail("the clock", fmt.Sprintf("of this machine shows %s, which is before %s: %s", moment(now), moment(latest), what),
			"set the clock (timedatectl set-time, or a client of NTP), then restart the platform")
	}
}

// compareOwn asks a listener of the running platform for the time.
func (x *examination) compareOwn(ctx context.Context, f *findings) {
	url := x.up.ready.Listeners["auth"]
	if url == "" {
		return
	}
	// The identity of the server does not matter here, and another check examines the certificate.
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // see above
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/.well-known/jwks.json", nil)
	if err != nil {
		return
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		f.warn(url, "does not answer ("+err.Error()+")", "look at the log of the platform, and whether a firewall is between")
		return
	}
	_ = resp.Body.Close()
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		x.compare(f, url, date, x.host.now(), ownClock)
	}
}

// compare checks how far the time of a server differs from the time here when it responded.
func (x *examination) compare(f *findings, server string, theirs, ours time.Time, allowed time.Duration) {
	apart := theirs.Add(time.Second / 2).Sub(ours).Round(time.Second) // the header leaves out the fraction
	if apart.Abs() <= allowed {
		f.ok(server, "has the same time")
		return
	}
	way := "ahead of"
	if apart < 0 {
		way = "behind"
	}
	f.warn(server, fmt.Sprintf("has a clock %s %s this machine's: tokens are taken for expired, or for not yet valid", apart.Abs(), way),
		"synchronise both clocks with NTP")
}
