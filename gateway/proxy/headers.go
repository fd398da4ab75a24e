package proxy

import (
	"cmp"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/openmep/mep/gateway/call"
	"github.com/openmep/mep/kit/httpx"
)

const requestIDHeader = httpx.RequestIDHeader

// The header fields that identify the caller.
const (
	appHeader    = "X-Appinstanceid"
	scopesHeader = "X-Consumer-Scopes"
)

// identityPrefixes are prefixes of header fields that a server behind the gateway may trust to identify the caller: those of this gateway,
// and those of gateways that apps were written for. They are in lower case.
var identityPrefixes = []string{"x-consumer", "x-credential", "x-authenticated", "x-auth-request-", "x-anonymous-consumer"}

// Clean removes header fields that a client must not send, before the gateway sets its own: fields with which the client could impersonate
// somebody else, and those named by its Connection field (RFC 9110 7.6.1). Many servers turn "_" into "-", so a field with "_" could pass
// for one that was checked or that the gateway sets. Unless underscores is set, Clean removes all fields with "_".
func Clean(h http.Header, proxied, underscores bool) {
	for name := range h {
		if !underscores && strings.IndexByte(name, '_') >= 0 || isIdentity(name) || misleading[name] || !proxied && proxyOnly[name] {
			delete(h, name)
		}
	}
	connection(h, h["Connection"])
}

// misleading are fields with which other gateways identify the caller, or which make a server use another path than the one that was
// judged. Names are in canonical form.
var misleading = map[string]bool{
	"X-Original-Url": true, "X-Rewrite-Url": true, "X-Forwarded-Client-Cert": true, "X-Forwarded-User": true, "X-Remote-User": true,
	"Remote-User": true, "X-Userinfo": true,
}

// proxyOnly are fields that only proxies may set.
var proxyOnly = map[string]bool{
	"X-Forwarded-Port": true, "X-Forwarded-Prefix": true, "X-Forwarded-Scheme": true, "X-Forwarded-Ssl": true, "X-Forwarded-Server": true,
	"X-Original-Forwarded-For": true, "X-Original-Host": true, "X-Client-Ip": true, "True-Client-Ip": true, "Cf-Connecting-Ip": true,
}

// CleanTrailer removes announced trailer fields with which a client could impersonate somebody else.
func CleanTrailer(h http.Header) {
	for name := range h {
		if isIdentity(name) || misleading[name] || strings.IndexByte(name, '_') >= 0 {
			delete(h, name)
		}
	}
}

// connection removes the connection-specific fields, except an upgrade to WebSocket.
func connection(h http.Header, fields []string) {
	upgrade := false
	for _, f := range fields {
		for name := range strings.SplitSeq(f, ",") {
			switch name = http.CanonicalHeaderKey(strings.TrimSpace(name)); name {
			case "Upgrade":
				upgrade = true
			case "Te", "Close", "Keep-Alive":
			default:
				delete(h, name)
			}
		}
	}
	// An upgrade to any other protocol would be a tunnel past all decisions of the gateway, which may ignore it (RFC 9110 7.8).
	if to := h["Upgrade"]; upgrade && len(to) == 1 && strings.EqualFold(to[0], "websocket") {
		h["Connection"] = []string{"Upgrade"}
		return
	}
	delete(h, "Connection")
	delete(h, "Upgrade")
	delete(h, "Http2-Settings")
}

func isIdentity(name string) bool {
	if len(name) < 3 || name[0]|0x20 != 'x' || name[1] != '-' && name[1] != '_' {
		return false
	}
	plain := strings.ToLower(strings.ReplaceAll(name, "_", "-"))
	for _, p := range identityPrefixes {
		if strings.HasPrefix(plain, p) {
			return true
		}
	}
	if (plain[2] == 'a' || plain[2] == '-') && strings.HasPrefix(strings.ReplaceAll(plain, "-", ""), "xappinstanceid") {
		return true
	}
	switch plain {
	case "x-real-ip", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto":
		return strings.Contains(name, "_") // the forms with dashes are handled elsewhere
	}
	return false
}

// fields sets header fields. The values of a typical call share one allocation.
type fields struct {
	header http.Header
	values [8]string
	n      int
}

func (f *fields) set(name, value string) {
	if f.n == len(f.values) {
		f.header[name] = []string{value}
		return
	}
	f.values[f.n] = value
	f.n++
	f.header[name] = f.values[f.n-1 : f.n : f.n]
}

// setHeaders builds the header of the request that is passed on.
func setHeaders(c *call.Call, in *http.Request, h http.Header) {
	plan := &c.Policy.Headers
	if !plan.KeepAuthorization {
		delete(h, "Authorization")
	}
	delete(h, "Proxy-Authorization")
	delete(h, "X-Real-Ip")
	for _, f := range plan.Claims {
		delete(h, f.Name)
	}
	for _, name := range plan.Remove {
		delete(h, name)
	}
	out := &fields{header: h}
	if c.Caller != nil {
		out.set(appHeader, c.Caller.Subject)
		out.set(scopesHeader, scopes(c))
		if len(plan.Claims) > 0 {
			setClaims(c, h)
		}
	}
	for _, f := range plan.Set {
		h[f.Name] = []string{f.Value}
	}
	if plan.RequestID {
		out.set(requestIDHeader, c.Info.RequestID)
	} else {
		delete(h, requestIDHeader)
	}
	if plan.XForwarded {
		setXForwarded(c, in, out)
	}
	if plan.Forwarded {
		out.set("Forwarded", forwarded(c, in))
	}
	if plan.Via {
		addVia(h, in.ProtoMajor, in.ProtoMinor)
	}
}

func scopes(c *call.Call) string {
	if c.Caller.Granted != nil {
		return strings.Join(slices.DeleteFunc(slices.Clone(c.Caller.Granted), func(s string) bool {
			return strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
		}), " ")
	}
	if len(c.Caller.Scopes) == 1 {
		return c.Caller.Scopes[0]
	}
	return strings.Join(c.Caller.Scopes, " ")
}

// setClaims passes claims of the token on: text and numbers unchanged, and lists of text separated by spaces.
func setClaims(c *call.Call, h http.Header) {
	claims := c.Caller.Claims()
	for _, f := range c.Policy.Headers.Claims {
		if v, ok := headerValue(claims[f.Value]); ok {
			h[f.Name] = []string{v}
		}
	}
}

func headerValue(claim any) (string, bool) {
	var text string
	switch v := claim.(type) {
	case nil:
		return "", false
	case []any:
		var parts []string
		for _, e := range v {
			if s, ok := e.(string); ok {
				parts = append(parts, s)
			}
		}
		text = strings.Join(parts, " ")
	case map[string]any:
		return "", false
	default:
		text = fmt.Sprint(v)
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
		return "", false // it could break the header or be misread
	}
	return text, true
}

// setXForwarded says where the call comes from in the form most servers read. It keeps what a trusted proxy said.
func setXForwarded(c *call.Call, in *http.Request, out *fields) {
	client := c.Info.Client.String()
	out.set("X-Real-Ip", client)
	chain, host, scheme := client, in.Host, proto(in)
	if c.Proxied {
		if prior := in.Header["X-Forwarded-For"]; len(prior) > 0 {
			chain = strings.Join(prior, ", ") + ", " + c.Peer.String()
		}
		host = cmp.Or(in.Header.Get("X-Forwarded-Host"), host)
		scheme = cmp.Or(in.Header.Get("X-Forwarded-Proto"), scheme)
	}
	out.set("X-Forwarded-For", chain)
	out.set("X-Forwarded-Host", host)
	out.set("X-Forwarded-Proto", scheme)
}

// maxAddr is the length of the longest address.
const maxAddr = len("0000:0000:0000:0000:0000:0000:0000:0000")

func proto(r *http.Request) string {
	if r.TLS != nil {
		return "https"
	}
	return "http"
}

// forwarded returns the value of the Forwarded field (RFC 7239). The elements of a trusted proxy come first.
func forwarded(c *call.Call, in *http.Request) string {
	from := c.Info.Client
	var b strings.Builder
	b.Grow(len(`for="[]";host="";proto=https`) + maxAddr + len(in.Host))
	if c.Proxied {
		from = c.Peer
		if prior := in.Header["Forwarded"]; len(prior) > 0 {
			b.WriteString(strings.Join(prior, ", "))
			b.WriteString(", ")
		}
	}
	b.WriteString("for=")
	writeNode(&b, from)
	if in.Host != "" && !strings.ContainsAny(in.Host, `"\`) {
		b.WriteString(`;host="`)
		b.WriteString(in.Host)
		b.WriteByte('"')
	}
	b.WriteString(";proto=")
	b.WriteString(proto(in))
	return b.String()
}

func writeNode(b *strings.Builder, a netip.Addr) {
	if a.Is6() {
		b.WriteString(`"[`)
		b.WriteString(a.String())
		b.WriteString(`]"`)
		return
	}
	b.WriteString(a.String())
}

// addVia appends this gateway to the Via field.
func addVia(h http.Header, major, minor int) {
	hop := "1.1 " + Pseudonym
	if major != 1 || minor != 1 {
		hop = strconv.Itoa(major)
		if major < 2 {
			hop += "." + strconv.Itoa(minor)
		}
		hop += " " + Pseudonym
	}
	if prior := h["Via"]; len(prior) > 0 {
		hop = strings.Join(prior, ", ") + ", " + hop
	}
	h["Via"] = []string{hop}
}
