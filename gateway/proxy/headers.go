package proxy

import (
	"cmp"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"github.com/openmep/mep/gateway/call"
	"github.com/openmep/mep/kit/httpx"
)

const requestIDHeader = httpx.RequestIDHeader

// The header fields that say who calls.
const (
	appHeader    = "X-Appinstanceid"
	scopesHeader = "X-Consumer-Scopes"
)

// identityPrefixes are the beginnings of header fields that somebody behind the gateway may take for a proof of who calls: this
// gateway's own, and those of gateways apps were written for. They are in lower case.
var identityPrefixes = []string{"x-appinstanceid", "x-consumer", "x-credential", "x-authenticated", "x-anonymous-consumer"}

// Clean removes what a client must not say: fields by which it might pass for somebody else, and those that its Connection field names,
// before the gateway sets any of its own (RFC 9110 7.6.1). Many servers turn "_" into "-", so that a field with "_" might pass for one
// that was checked, or that the gateway sets: unless underscores are wanted, there are none.
func Clean(h http.Header, underscores bool) {
	for name := range h {
		if !underscores && strings.IndexByte(name, '_') >= 0 || isIdentity(name) {
			delete(h, name)
		}
	}
	if fields := h["Connection"]; len(fields) > 0 {
		connection(h, fields)
	}
}

// connection removes the fields that hold for this connection alone, all but an upgrade.
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
	if upgrade {
		h["Connection"] = []string{"Upgrade"}
		return
	}
	delete(h, "Connection")
	delete(h, "Upgrade")
}

func isIdentity(name string) bool {
	if len(name) < 2 || name[0]|0x20 != 'x' || name[1] != '-' && name[1] != '_' {
		return false
	}
	plain := strings.ToLower(strings.ReplaceAll(name, "_", "-"))
	for _, p := range identityPrefixes {
		if strings.HasPrefix(plain, p) {
			return true
		}
	}
	switch plain {
	case "x-real-ip", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto":
		return strings.Contains(name, "_") // with dashes they are dealt with as such
	}
	return false
}

// setHeaders makes the header of the request that is passed on.
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
	if c.Caller != nil {
		h[appHeader] = []string{c.Caller.Subject}
		h[scopesHeader] = []string{scopes(c)}
		if len(plan.Claims) > 0 {
			setClaims(c, h)
		}
	}
	for _, f := range plan.Set {
		h[f.Name] = []string{f.Value}
	}
	if plan.RequestID {
		h[requestIDHeader] = []string{c.Info.RequestID}
	} else {
		delete(h, requestIDHeader)
	}
	if plan.XForwarded {
		setXForwarded(c, in, h)
	}
	if plan.Forwarded {
		h["Forwarded"] = []string{forwarded(c, in)}
	}
	if plan.Via {
		addVia(h, in.ProtoMajor, in.ProtoMinor)
	}
}

func scopes(c *call.Call) string {
	if c.Caller.Granted != nil {
		return strings.Join(c.Caller.Granted, " ")
	}
	if len(c.Caller.Scopes) == 1 {
		return c.Caller.Scopes[0]
	}
	return strings.Join(c.Caller.Scopes, " ")
}

// setClaims passes claims of the token on: text and numbers as they are, lists of text separated by blanks.
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
		return "", false // it could break the header, or be read as something else
	}
	return text, true
}

// setXForwarded says where the call comes from, in the form that most servers read. What a trusted proxy said before is kept.
func setXForwarded(c *call.Call, in *http.Request, h http.Header) {
	client := c.Info.Client.String()
	h["X-Real-Ip"] = []string{client}
	chain, host, scheme := client, in.Host, proto(in)
	if c.Proxied {
		if prior := in.Header["X-Forwarded-For"]; len(prior) > 0 {
			chain = strings.Join(prior, ", ") + ", " + c.Peer.String()
		}
		host = cmp.Or(in.Header.Get("X-Forwarded-Host"), host)
		scheme = cmp.Or(in.Header.Get("X-Forwarded-Proto"), scheme)
	}
	h["X-Forwarded-For"] = []string{chain}
	h["X-Forwarded-Host"] = []string{host}
	h["X-Forwarded-Proto"] = []string{scheme}
}

func proto(r *http.Request) string {
	if r.TLS != nil {
		return "https"
	}
	return "http"
}

// forwarded is the element of the field Forwarded (RFC 7239), after those of a trusted proxy.
func forwarded(c *call.Call, in *http.Request) string {
	from := c.Info.Client
	var b strings.Builder
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

// addVia appends this gateway to the field Via.
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
