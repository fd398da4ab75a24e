// Package authn authenticates callers by a token, an API key or a client certificate. It removes API keys from the request, so that nothing
// behind the gateway can use them again.
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

// Authenticator authenticates callers.
type Authenticator struct {
	// Guard checks tokens and certificates.
	Guard *identity.Guard
	// Key returns the caller that a valid API key stands for, and the services that the key is valid for; no services means no restriction.
	Key func(key string) (*identity.Caller, []string, error)
	// Open admits callers without credentials if the policy does not name authentication methods.
	Open bool
	// Header and Query are the names of the header field, in canonical form, and of the query parameter that carry API keys; "" means none.
	Header, Query string
}

// Methods are the authentication methods that a policy allows.
type Methods struct {
	Token, Key, Certificate, Anonymous bool
	// Lenient treats callers with invalid credentials as anonymous: the credentials may be meant for the target.
	Lenient bool
}

// MethodsOf returns the methods that a policy allows. If it names none, all are allowed, but Anonymous only with Open.
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

// Take reports whether the methods admit the caller of c, given how the caller authenticated.
func (m Methods) Take(c *call.Call) bool {
	switch {
	case c.Caller == nil:
		return m.Anonymous
	case m.Key && c.Key != nil, m.Token && c.Token != "":
		return true
	}
	return m.Certificate && c.Caller.Via == ViaCertificate
}

// ViaCertificate is the value of Caller.Via for callers with a client certificate.
const ViaCertificate = string(gateway.ByCertificate)

// Recognise are the methods for routes whose target decides by itself who may call.
var Recognise = Methods{Token: true, Certificate: true, Anonymous: true, Lenient: true}

// Identify authenticates the caller and records the result in c. The error is an *identity.Refusal or has a kind.
func (a *Authenticator) Identify(c *call.Call, r *http.Request, m Methods) error {
	err := a.identify(c, r, m)
	if _, refusal := errors.AsType[*identity.Refusal](err); refusal && m.Lenient {
		return nil
	}
	return err
}

func (a *Authenticator) identify(c *call.Call, r *http.Request, m Methods) error {
	key, err := a.keyOf(r, m) // first, because it removes the key even if the rest fails
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

// sendable reports whether a name can be sent to the target in a header field (RFC 9110 5.5).
func sendable(name string) bool {
	for _, b := range []byte(name) {
		if b < ' ' || b == 0x7f {
			return false
		}
	}
	return true
}

func refuse(why string) error { return &identity.Refusal{Code: "invalid_token", Description: why} }

// tokenOf returns the bearer token of the request. Other authentication schemes are ignored.
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

// keyOf returns the API key of the request and removes it. If the policy does not accept keys, it still removes those of this platform: the
// target could use them to call as their owners.
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

// keyPrefix is the prefix of the platform's API keys.
const keyPrefix = "mepk_"

// without removes all parameters of the given name from a query and returns their values. The rest of the query keeps its spelling.
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

// wanted describes the credentials that the methods accept.
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
