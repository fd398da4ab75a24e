package doctor

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/kit/pki"
)

const (
	// soon is how long before its expiry a certificate that somebody has to replace is worth a warning.
	soon = 14 * 24 * time.Hour
	// late is the same for certificates that the platform renews a month before: something keeps it from doing so.
	late = 24 * time.Hour
)

// listener is a listener as configured.
type listener struct {
	name, addr string
	set        string // the setting of its address, if not name.listen
}

// setting returns the name of the setting for its address.
func (l listener) setting() string { return cmp.Or(l.set, l.name+".listen") }

// listeners returns the listeners of the platform, each with the address to bind.
func (x *examination) listeners() []listener {
	list := []listener{
		{name: "mp1", addr: x.Server.Mp1Listen}, {name: "mm5", addr: x.Server.Mm5.Listen}, {name: "auth", addr: x.Auth.Listen},
		{name: "ops", addr: x.Common.OpsListen},
	}
	if x.DNS != nil && x.DNS.Enabled() {
		list = append(list, listener{name: "dns", addr: x.DNS.Listen},
			listener{name: "dns-management", addr: x.DNS.ManagementListen, set: "dns.managementListen"})
		if x.DNS.TLSListen != "" {
			list = append(list, listener{name: "dns-tls", addr: x.DNS.TLSListen, set: "dns.tlsListen"})
		}
	}
	if x.Gateway != nil && x.Gateway.Enabled() {
		list = append(list, listener{name: "gateway", addr: x.Gateway.Listen, set: "gateway.listen"},
			listener{name: "gateway-management", addr: x.Gateway.ManagementListen, set: "gateway.managementListen"})
	}
	for i := range list {
		if addr, err := x.Common.Listen(list[i].setting(), list[i].addr); err == nil {
			list[i].addr = addr
		}
	}
	return list
}

// certificates examines the certificate of the listeners and the CAs of clients.
func (x *examination) certificates(_ context.Context, f *findings) {
	if x.Common.Dev {
		f.note("certificates", "are not used with --dev")
		return
	}
	if x.Common.TLSCert != "" {
		x.given(f)
	} else {
		x.own(f)
	}
	for _, file := range x.Common.TLSClientCAs {
		if !f.faults(pki.Check(pki.Files{CA: file, Within: soon}, x.host.now())) {
			f.ok(file, "has CAs whose client certificates are taken")
		}
	}
}

// faults adds the faults of certificates, and reports whether there are any.
func (f *findings) faults(list []pki.Fault) bool {
	for _, fault := range list {
		level := Fail
		if fault.Warning {
			level = Warn
		}
		f.add(level, fault.File, fault.Problem, fault.Remedy)
	}
	return len(list) > 0
}

// given examines a certificate that the operator keeps.
func (x *examination) given(f *findings) {
	file := x.Common.TLSCert
	f.faults(pki.Check(pki.Files{
		Cert: file, Key: x.Common.TLSKey, Usage: x509.ExtKeyUsageServerAuth, Within: soon,
	}, x.host.now()))
	leaf := firstOf(file)
	if leaf == nil {
		return
	}
	x.publicNames(f, file, leaf, "have it issued for that name too, or correct the setting")
	x.serviceNames(f, file, leaf, "have it issued for these names too, or correct the setting")
	for _, l := range x.listeners() {
		setting := publicSetting[l.name]
		host := x.reachedAs(l)
		if host == "" || leaf.VerifyHostname(host) == nil {
			continue
		}
		remedy := "have it issued for that name too"
		if setting != "" {
			remedy += ", or set " + setting + " to a URL with a name that it is for"
		}
		f.warn(file, fmt.Sprintf("is not for %s, by which clients reach %s", host, l.setting()), remedy)
	}
	if f.worst() == OK {
		f.ok(file, "is good until "+moment(leaf.NotAfter))
	}
}

// reachedAs returns the name by which clients reach a listener whose public URL is not set; empty if nothing can be said.
func (x *examination) reachedAs(l listener) string {
	given := func(u publicURL) bool { return u.setting == publicSetting[l.name] && u.value != "" }
	if slices.ContainsFunc(x.publicURLs(), given) ||
		(l.name == "ops" || strings.HasSuffix(l.name, "-management")) && loopback(l.addr) || l.name == "dns" { // plain DNS needs no certificate
		return ""
	}
	host, _, err := net.SplitHostPort(l.addr)
	if err != nil {
		return ""
	}
	if ip, err := netip.ParseAddr(host); host != "" && (err != nil || !ip.IsUnspecified()) {
		return host
	}
	if l.name == "ops" {
		return "" // scrapers use the address, which may be any
	}
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return name
}

// publicSetting maps a listener to the setting of its public URL.
var publicSetting = map[string]string{
	"mp1": "publicUrl", "mm5": "mm5.publicUrl", "auth": "auth.publicUrl", "gateway": "gateway.publicUrl", "dns-management": "dns.publicUrl",
}

type publicURL struct{ setting, value string }

// publicURLs returns the URLs given to clients; unset ones are empty.
func (x *examination) publicURLs() []publicURL {
	list := []publicURL{{"publicUrl", x.Server.PublicURL}, {"mm5.publicUrl", x.Server.Mm5.PublicURL}, {"auth.publicUrl", x.Auth.PublicURL}}
	if x.Gateway != nil && x.Gateway.Enabled() {
		list = append(list, publicURL{"gateway.publicUrl", x.Server.GatewayURL})
	}
	if x.DNS != nil && x.DNS.Enabled() {
		list = append(list, publicURL{"dns.publicUrl", x.DNS.PublicURL})
	}
	return list
}

// publicNames checks that a certificate covers the hosts of the URLs that clients are given.
func (x *examination) publicNames(f *findings, file string, leaf *x509.Certificate, remedy string) {
	for _, u := range x.publicURLs() {
		parsed, err := url.Parse(u.value)
		if err != nil || parsed.Scheme != "https" || leaf.VerifyHostname(parsed.Hostname()) == nil {
			continue
		}
		problem := fmt.Sprintf("is not for %s, the host of %s", parsed.Hostname(), u.setting)
		if len(x.Common.Identity.Proxies) > 0 {
			f.warn(file, problem, remedy+"; a proxy that shows clients a certificate of its own does as well")
			continue
		}
		f.fail(file, problem, remedy)
	}
}

// serviceNames checks that a certificate covers the host names of services at the gateway, and of their instances.
func (x *examination) serviceNames(f *findings, file string, leaf *x509.Certificate, remedy string) {
	domain, err := gateway.CanonicalDomain(x.serviceDomain())
	if err != nil {
		return // there is no domain: the settings are valid
	}
	var missing []string
	for _, below := range []string{domain, gateway.InstancesLabel + "." + domain} {
		if leaf.VerifyHostname("name."+below) != nil {
			missing = append(missing, "*."+below)
		}
	}
	if len(missing) > 0 {
		f.warn(file, "is not for "+strings.Join(missing, " and ")+", by which gateway.serviceDomain has clients reach services", remedy)
	}
}

// own examines the platform's own CA and the certificate it issued.
func (x *examination) own(f *findings) {
	var addrs []string
	for _, l := range x.listeners() {
		addrs = append(addrs, l.addr)
	}
	names, err := pki.Names(addrs, x.Common.TLSNames)
	if err != nil {
		f.fail("tls.names", "cannot be used for a certificate ("+err.Error()+")", "correct it, or the address of the listener")
		return
	}
	caFile, certFile := filepath.Join(x.Common.PKIDir(), "ca.crt"), filepath.Join(x.Common.PKIDir(), "server.crt")
	x.publicNames(f, certFile, wouldBe(names), "add that name to tls.names, or correct the setting")
	x.serviceNames(f, certFile, wouldBe(names), "add them to tls.names, or correct the setting")
	if !x.authority(f, caFile, certFile) {
		return
	}
	x.issued(f, caFile, certFile, names)
}

// wouldBe returns a certificate that covers the names.
func wouldBe(names []string) *x509.Certificate {
	leaf := &x509.Certificate{}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			leaf.IPAddresses = append(leaf.IPAddresses, ip)
		} else {
			leaf.DNSNames = append(leaf.DNSNames, n)
		}
	}
	return leaf
}

const restoreCA = "restore ca.crt and ca.key from a backup, or remove both to have a new CA made, which every client must be given"

// authority examines the CA, and reports whether it can issue certificates.
func (x *examination) authority(f *findings, caFile, certFile string) bool {
	keyFile := filepath.Join(filepath.Dir(caFile), "ca.key")
	cert, key := exists(caFile), exists(keyFile)
	switch {
	case !cert && !key && !exists(certFile) && !x.runs():
		f.note(caFile, "does not exist yet: mep run makes it, and a certificate for the listeners")
		return false
	case !cert && !key && x.runs():
		f.fail(caFile, "and ca.key have vanished while the platform runs", "restore both from a backup")
		return false
	case !cert && !key:
		f.warn(caFile, "and ca.key are gone: the next start makes a new CA, which every client must be given", "restore both from a backup, if there is one")
		return false
	case !key:
		f.fail(keyFile, "is missing, while ca.crt, which clients trust, is there: nothing can be issued", restoreCA)
		return false
	case !cert:
		f.warn(caFile, "is missing", "restore it from a backup, or let mep run make it again from ca.key")
		return false
	}
	for _, file := range []string{caFile, keyFile} {
		if err := x.host.access(file, unix.R_OK); err != nil {
			f.fail(file, fmt.Sprintf("may not be read by user %d (%v)", x.host.uid, err),
				"run mep doctor as the user of the platform; if this is that user, give it the file with chown")
			return false
		}
	}
	sound := true
	for _, fault := range pki.Check(pki.Files{Cert: caFile, Key: keyFile}, x.host.now()) {
		switch fault.Kind {
		case pki.KeyExposed:
			f.fail(fault.File, fault.Problem, "chmod 600 "+fault.File+", and think of making a new CA if others use this machine")
		case pki.NotYetValid: // reported by the check of the clocks
		case pki.Expired:
			f.warn(fault.File, fault.Problem, "mep run issues it anew with the same key; give it to the clients then")
		default:
			f.fail(fault.File, fault.Problem, restoreCA)
			sound = false
		}
	}
	if leaf := firstOf(caFile); sound && leaf != nil && f.worst() == OK {
		f.ok(caFile, "is the CA clients must trust, and good until "+moment(leaf.NotAfter))
	}
	return sound
}

// issued examines the certificate of the listeners. The platform corrects its faults by itself, as long as it can.
func (x *examination) issued(f *findings, caFile, certFile string, names []string) {
	keyFile := filepath.Join(filepath.Dir(certFile), "server.key")
	if !exists(certFile) && !exists(keyFile) && !x.runs() {
		f.note(certFile, "does not exist: mep run issues it")
		return
	}
	good := true
	for _, fault := range pki.Check(pki.Files{
		Cert: certFile, Key: keyFile, CA: caFile, Usage: x509.ExtKeyUsageServerAuth, Within: late,
	}, x.host.now()) {
		switch {
		case fault.File == caFile, fault.Kind == pki.NotYetValid:
			continue // reported elsewhere
		case fault.Kind == pki.KeyExposed:
			f.warn(fault.File, fault.Problem, "chmod 600 "+fault.File)
		case fault.Kind == pki.Unreadable && exists(fault.File):
			f.fail(fault.File, fault.Problem, fault.Remedy)
		case !x.runs(), fault.Warning:
			f.warn(fault.File, fault.Problem, x.reissue())
		default:
			f.fail(fault.File, fault.Problem, x.reissue())
		}
		good = false
	}
	leaf := firstOf(certFile)
	if leaf == nil || !good {
		return
	}
	missing := slices.DeleteFunc(names, func(name string) bool { return leaf.VerifyHostname(name) == nil })
	if len(missing) > 0 {
		f.warn(certFile, "is not for "+strings.Join(missing, ", "), x.reissue())
	} else {
		f.ok(certFile, fmt.Sprintf("is good until %s, for %d names", moment(leaf.NotAfter), len(leaf.DNSNames)+len(leaf.IPAddresses)))
	}
}

// reissue says how the platform replaces a certificate that it issued.
func (x *examination) reissue() string {
	if x.runs() {
		return "wait a minute, in which the platform issues another one; if it does not, its log says why"
	}
	return "start the platform, which issues another one"
}

// firstOf returns the first certificate of a PEM file; nil if there is none that can be read.
func firstOf(file string) *x509.Certificate {
	data, err := os.ReadFile(file)
	for err == nil {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return nil
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil
		}
		return cert
	}
	return nil
}

// moment formats a time as the faults of package pki do.
func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }
