// Package authn finds out who calls: by a token, an API key or a client certificate. It takes the proof out of the request, so that
// nothing behind the gateway can use it again unless a policy says so.
package authn

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/openmep/mep/api/auth"
	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/gateway/call"
	"github.com/openmep/mep/kit/identity"
)

// Authenticator finds out who calls.
type Authenticator struct {
	// Guard checks tokens and certificates.
	Guard *identity.Guard
	// Key finds whom an API key that is in force stands for, and the services it is good for; none: no such bound.
	Key func(key string) (*identity.Caller, []string, error)
	// Open lets those in who prove nothing where the policy does not say how to prove it.
	Open bool
	// Header and Query are the names of the header field, in its canonical form, and of the query parameter of API keys; "" is none.
	Header, Query string
}

// Methods are the ways a policy allows, all when it does not say.
type Methods struct {
	Token, Key, Certificate, Anonymous bool
	// Lenient takes who proves nothing that counts for nobody: what callers send may be meant for what is behind the gateway.
	Lenient bool
}

// MethodsOf reads what a policy says.
func (a *Authenticator) MethodsOf(p *gateway.Policy) Methods {
	if len(p.Authentication) == 0 {
		return Methods{Token: true, Key: true, Certificate: true, Anonymous: a.Open}
	}
	var m Methods
	for _, by := range p.Authentication {
		switch by {
		case gateway.ByToken:
			m.Token = true
		case gateway.ByAPIKey:
			m.Key = true
		case gateway.ByCertificate:
			m.Certificate = true
		case gateway.Anonymous:
			m.Anonymous = true
		}
	}
	if m == (Methods{Anonymous: true}) {
		return Methods{Token: true, Key: true, Certificate: true, Anonymous: true, Lenient: true}
	}
	return m
}

// Take reports whether the methods let somebody in who proved who it is as the caller of c did.
func (m Methods) Take(c *call.Call) bool {
	switch {
	case c.Caller == nil:
		return m.Anonymous
	case m.Key && c.Key != nil, m.Token && c.Token != "":
		return true
	}
	return m.Certificate && c.Caller.Via == ViaCertificate
}

// ViaCertificate is how a caller with a client certificate proved who it is.
const ViaCertificate = string(gateway.ByCertificate)

// Recognise are the ways that count where it is decided elsewhere who may call.
var Recognise = Methods{Token: true, Certificate: true, Anonymous: true, Lenient: true}

// Identify finds out who makes the call, and writes it down in it. The error is an *identity.Refusal, or has a kind.
func (a *Authenticator) Identify(c *call.Call, r *http.Request, m Methods) error {
	err := a.identify(c, r, m)
	if _, refusal := errors.AsType[*identity.Refusal](err); refusal && m.Lenient {
		return nil
	}
	return err
}

func (a *Authenticator) identify(c *call.Call, r *http.Request, m Methods) error {
	key, err := a.keyOf(r, m) // first, because it takes the key out whatever comes of the rest
	if err != nil {
		return err
	}
	token, err := tokenOf(r, m)
	if err != nil {
		return err
	}
	var caller, holder *identity.Caller
	if token != "" {
		if caller, err = a.Guard.Token(r.Context(), token, c.Info.Client); err != nil {
			return err
		}
	}
	if key != "" {
		var services []string
		if holder, services, err = a.Key(key); err != nil {
			return refuse("the API key is not in force: it is unknown, has expired, or was deleted")
		}
		if caller != nil && caller.Subject != holder.Subject {
			return refuse("the token and the API key are those of different callers: send one of them")
		}
		if caller == nil {
			caller = holder
		}
		c.Services = services
	}
	if caller == nil && m.Certificate {
		if caller, err = a.Guard.Certificate(r.TLS); err != nil {
			return err
		}
	}
	if caller == nil {
		if m.Anonymous {
			return nil
		}
		return &identity.Refusal{Description: "who calls is not known: send " + a.wanted(m)}
	}
	if !sendable(caller.Subject) {
		return refuse("the name of the caller has characters that cannot stand in a header field")
	}
	c.Caller, c.Token, c.Key = caller, auth.Secret(token), holder
	c.Info.Consumer, c.Info.Scopes, c.Info.Via = caller.Subject, caller.Scopes, caller.Via
	return nil
}

// sendable reports whether a name can be told to what the call leads to (RFC 9110 5.5).
func sendable(name string) bool {
	for _, b := range []byte(name) {
		if b < ' ' || b == 0x7f {
			return false
		}
	}
	return true
}

func refuse(why string) error { return &identity.Refusal{Code: "invalid_token", Description: why} }

// tokenOf is the bearer token of the request. Another scheme is none of the gateway's business.
func tokenOf(r *http.Request, m Methods) (string, error) {
	fields := r.Header["Authorization"]
	if len(fields) == 0 || !m.Token {
		return "", nil
	}
	token, err := identity.Bearer(fields)
	if refusal, ok := errors.AsType[*identity.Refusal](err); ok && refusal.Code == "" {
		return "", nil
	}
	if err == nil && token == "" {
		return "", &identity.Refusal{Code: "invalid_request", Description: "the Authorization header field has no token: it must be: Bearer TOKEN"}
	}
	return token, err
}

// keyOf is the API key of the request, which it takes out. Where keys do not count, those of this platform are taken out nevertheless:
// what is behind the gateway could call as their owners.
func (a *Authenticator) keyOf(r *http.Request, m Methods) (string, error) {
	own := func(key string) bool { return m.Key || strings.HasPrefix(key, keyPrefix) }
	var keys []string
	if a.Header != "" {
		if keys = r.Header[a.Header]; len(keys) > 0 {
			if slices.ContainsFunc(keys, own) {
				delete(r.Header, a.Header)
			}
		}
	}
	if q := r.URL.RawQuery; a.Query != "" && (strings.Contains(q, a.Query) || strings.IndexByte(q, '%') >= 0) {
		rest, found := without(q, a.Query)
		if slices.ContainsFunc(found, own) {
			r.URL.RawQuery = rest
		}
		keys = append(keys, found...)
	}
	switch {
	case len(keys) == 0 || !m.Key:
		return "", nil
	case len(keys) > 1:
		return "", &identity.Refusal{Code: "invalid_request", Description: "there are several API keys: send one"}
	case keys[0] == "":
		return "", refuse("the API key is empty")
	}
	return keys[0], nil
}

// keyPrefix begins the API keys of the platform.
const keyPrefix = "mepk_"

// without takes the parameter of a name out of a query and returns its values. The rest stays as it was spelt.
func without(query, name string) (rest string, values []string) {
	var kept []string
	for part := range strings.SplitSeq(query, "&") {
		k, v, _ := strings.Cut(part, "=")
		if plain, err := url.QueryUnescape(k); err != nil || plain != name {
			kept = append(kept, part)
			continue
		}
		if plain, err := url.QueryUnescape(v); err == nil {
			v = plain
		}
		values = append(values, v)
	}
	return strings.Join(kept, "&"), values
}

// wanted says how to prove who one is.
func (a *Authenticator) wanted(m Methods) string {
	var ways []string
	if m.Token {
		ways = append(ways, "a token as Authorization: Bearer TOKEN")
	}
	if m.Key {
		switch {
		case a.Header != "":
			ways = append(ways, "an API key as "+strings.ToLower(a.Header)+": KEY")
		case a.Query != "":
			ways = append(ways, "an API key as query parameter "+a.Query)
		}
	}
	if m.Certificate {
		ways = append(ways, "a client certificate")
	}
	return strings.Join(ways, ", or ")
}
