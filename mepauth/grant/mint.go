package grant

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/openmep/mep/api/auth"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/audit"
)

// mint returns a signed token. It assembles the payload by hand, because it runs for every token
// request.
func (s *Service) mint(from Origin, by, accessKeyID string, cred *state.Credential, scopes []string) (*auth.TokenResponse, error) {
	signer, err := s.Ring.Signer()
	if err != nil {
		return nil, err
	}
	policy, now := s.Policy(), s.now()
	life := int64(policy.Lifetime.Seconds())
	id, scope := newID(), strings.Join(scopes, " ")
	p := make([]byte, 0, 512)
	p = appendMember(append(p, '{'), "iss", policy.Issuer)
	p = appendMember(append(p, ','), "sub", cred.Subject)
	p = appendMember(append(p, ','), "aud", policy.Audience)
	for _, t := range []struct {
		name string
		at   int64
	}{{"exp", now.Unix() + life}, {"iat", now.Unix()}, {"nbf", now.Unix()}} {
		p = append(append(append(p, `,"`...), t.name...), `":`...)
		p = strconv.AppendInt(p, t.at, 10)
	}
	p = appendMember(append(p, ','), "jti", id)
	p = appendMember(append(p, ','), "scope", scope)
	p = appendMember(append(p, ','), "client_id", accessKeyID)
	p = appendMember(append(p, ','), "epoch", cred.Epoch)
	if cred.BindClientAddress {
		p = appendMember(append(p, ','), "clientip", from.Address.String())
	}
	token, err := signer.Sign(append(p, '}'))
	if err != nil {
		return nil, err
	}
	s.Audit.Busy(audit.Entry{
		Action: "token.issue", Result: audit.Success, Caller: cred.Subject, Client: accessKeyID, Via: by,
		Source: from.Address.String(), Target: id, Scope: scope, RequestID: from.RequestID,
	})
	return &auth.TokenResponse{AccessToken: token, TokenType: auth.TokenTypeBearer, ExpiresIn: int(life), Scope: scope}, nil
}

// newID returns a token id: 128 random bits, in fewer characters than a UUID.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// AppendResponse appends the JSON of a response, assembled by hand like the payload of the token.
func AppendResponse(dst []byte, r *auth.TokenResponse) []byte {
	dst = appendMember(append(dst, '{'), "access_token", r.AccessToken)
	dst = appendMember(append(dst, ','), "token_type", r.TokenType)
	dst = strconv.AppendInt(append(dst, `,"expires_in":`...), int64(r.ExpiresIn), 10)
	dst = appendMember(append(dst, ','), "scope", r.Scope)
	if r.RefreshToken != "" {
		dst = appendMember(append(dst, ','), "refresh_token", r.RefreshToken)
	}
	return append(dst, '}')
}

// appendMember appends a string member of a JSON object.
func appendMember(dst []byte, name, value string) []byte {
	dst = append(append(append(dst, '"'), name...), `":`...)
	for i := range len(value) {
		if c := value[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, _ := json.Marshal(value) // a string can always be marshalled
			return append(dst, quoted...)
		}
	}
	dst = append(append(dst, '"'), value...)
	return append(dst, '"')
}
