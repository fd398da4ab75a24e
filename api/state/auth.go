package state

import (
	"encoding/json"
	"net/url"
	"time"
)

// The prefixes of the records by which every part of the platform identifies callers. They never hold a secret, not even
// encrypted.
const (
	PrefixCredentials = Root + "auth/credentials/"
	PrefixSigningKeys = Root + "auth/keys/"
	PrefixIssuers     = Root + "auth/issuers/"
	PrefixRevoked     = Root + "auth/revoked/"
)

// AuthRoot is the prefix of the records that only mepauth reads, so that an etcd role can deny access to the other parts.
const AuthRoot = "/mep/auth/v1/"

// The prefixes below AuthRoot.
const (
	PrefixSecrets     = AuthRoot + "secrets/"
	PrefixPrivateKeys = AuthRoot + "keys/"
	PrefixHolders     = AuthRoot + "holders/"
	PrefixAttempts    = AuthRoot + "attempts/"
	KeyOverflow       = AuthRoot + "attempts_overflow"
	PrefixReplays     = AuthRoot + "replays/"
	KeyReplayFence    = AuthRoot + "replay_fence"
	KeySeal           = AuthRoot + "seal/check"
	KeyBootstrap      = AuthRoot + "bootstrap/done"
)

// TokenRoot is the prefix of the records that mepauth reads on demand and nobody watches.
const TokenRoot = "/mep/tokens/v1/" //nolint:gosec // not a token

// PrefixRefresh is the prefix of the refresh tokens.
const PrefixRefresh = TokenRoot + "refresh/"

// RefreshKeys returns the prefix of the refresh token families of an access key.
func RefreshKeys(accessKeyID string) string {
	return PrefixRefresh + url.PathEscape(accessKeyID) + "/"
}

// CredentialKey returns the key of the credential of an access key, which holds no secrets.
func CredentialKey(accessKeyID string) string { return PrefixCredentials + url.PathEscape(accessKeyID) }

// SecretKey returns the key of the secrets of an access key.
func SecretKey(accessKeyID string) string { return PrefixSecrets + url.PathEscape(accessKeyID) }

// HolderKeys returns the prefix of the index of a subject's access keys. An index key ends in the access key and has an empty
// value.
func HolderKeys(subject string) string { return PrefixHolders + url.PathEscape(subject) + "/" }

// HolderKey returns the index key of an access key.
func HolderKey(subject, accessKeyID string) string {
	return HolderKeys(subject) + url.PathEscape(accessKeyID)
}

// AttemptsKey returns the key of the failed attempts to use an access key. The access key need not exist.
func AttemptsKey(accessKeyID string) string { return PrefixAttempts + url.PathEscape(accessKeyID) }

// AccessKeyID returns the access key of a key below the prefix.
func AccessKeyID(prefix, key string) (string, error) { return url.PathUnescape(key[len(prefix):]) }

// SigningKeyKey returns the key of the public part of a signing key.
func SigningKeyKey(kid string) string { return PrefixSigningKeys + kid }

// PrivateKeyKey returns the key of the private part of a signing key.
func PrivateKeyKey(kid string) string { return PrefixPrivateKeys + kid }

// IssuerKey returns the key of an issuer name.
func IssuerKey(issuer string) string { return PrefixIssuers + url.PathEscape(issuer) }

// RevokedKey returns the key of a revoked token.
func RevokedKey(tokenID string) string { return PrefixRevoked + tokenID }

// The scopes of tokens.
const (
	ScopeMp1 = "mp1" // what apps do over Mp1
	ScopeMm5 = "mm5" // what the MEC platform manager does
	ScopeOps = "ops" // what operators do
)

// OriginCredentials marks an instance that became known when credentials were provisioned for it.
const OriginCredentials AppOrigin = "credentials"

// Credential is the record of an access key, without its secrets. A token is valid only while this record exists, is not
// disabled and has the epoch the token was issued under; deleting a credential therefore revokes its tokens.
type Credential struct {
	Version
	// Subject is the appInstanceId, or the name of a manager.
	Subject string `json:"subject"`
	// Name is a display name; may be empty.
	Name string `json:"name,omitempty"`
	// Scopes are the scopes that tokens may be issued for.
	Scopes []string `json:"scopes"`
	// Epoch changes when the tokens issued so far must no longer be accepted.
	Epoch string `json:"epoch"`
	// Disabled refuses new tokens and those already issued.
	Disabled bool `json:"disabled,omitempty"`
	// RefreshTokens reports whether refresh tokens are issued as well.
	RefreshTokens bool `json:"refreshTokens,omitempty"`
	// BindClientAddress makes tokens valid only for the client address they were issued to.
	BindClientAddress bool `json:"bindClientAddress,omitempty"`
	// Created and Changed are when the record was first and last written.
	Created time.Time `json:"created"`
	Changed time.Time `json:"changed"`
}

// Secrets are the secret keys of an access key, newest first. There are two while one is being replaced.
type Secrets struct {
	Version
	// Epoch is the epoch of the credential the secrets belong to.
	Epoch   string   `json:"epoch"`
	Secrets []Secret `json:"secrets"`
}

// Secret is one secret key.
type Secret struct {
	ID string `json:"id"`
	// Sealed is the secret key, encrypted.
	Sealed  []byte    `json:"sealed"`
	Created time.Time `json:"created"`
	// Expires is when the secret key expires; zero means never.
	Expires time.Time `json:"expires,omitzero"`
}

// SigningKey is the public part of a key that signs tokens.
type SigningKey struct {
	Version
	// Algorithm is the JWS algorithm, such as ES256.
	Algorithm string `json:"alg"`
	// JWK is the public key in the form of RFC 7517.
	JWK json.RawMessage `json:"jwk"`
	// Created is when the key was made; NotBefore is when it starts signing.
	Created   time.Time `json:"created"`
	NotBefore time.Time `json:"notBefore"`
	// Retired is when the key stops signing, zero until a successor or an operator sets it. Expires is when the last token it
	// signed has expired.
	Retired time.Time `json:"retired,omitzero"`
	Expires time.Time `json:"expires,omitzero"`
	// Verify is how long the key verifies after it stops signing, in seconds: the longest token lifetime plus a margin.
	Verify int64 `json:"verify"`
}

// PrivateKey is the private part of a signing key.
type PrivateKey struct {
	Version
	// Sealed is the key in PKCS #8, encrypted.
	Sealed []byte `json:"sealed"`
}

// Issuer is a name mepauth puts into its tokens.
type Issuer struct {
	Version
	// Issuer is the value of the claim iss.
	Issuer string `json:"issuer"`
	// Replaced is when another name replaced it, zero for the present one.
	Replaced time.Time `json:"replaced,omitzero"`
}

// Revoked is a revoked token. The record lasts as long as the token could be used.
type Revoked struct {
	Version
	// Expires is when the token would have expired.
	Expires time.Time `json:"expires"`
}

// Attempts is the record of the recent uses of an access key.
type Attempts struct {
	Version
	// Sources holds the recent failures by client address.
	Sources map[string]Failures `json:"sources,omitempty"`
	// All counts the failures from all sources except the trusted ones.
	All Failures `json:"all"`
	// Trusted lists addresses from which the key was used successfully, the latest first. A lock for everybody does not apply
	// to them.
	Trusted []string `json:"trusted,omitempty"`
}

// Failures counts failed attempts.
type Failures struct {
	// First is the start of the window in which Count is counted.
	First time.Time `json:"first,omitzero"`
	Count int       `json:"count,omitempty"`
	// Until is when a lock ends, zero without a lock.
	Until time.Time `json:"until,omitzero"`
}

// Refresh is a family of refresh tokens: each token is valid until it is exchanged for the next.
type Refresh struct {
	Version
	AccessKeyID string `json:"accessKeyId"`
	// Epoch is the epoch of the credential when the family began.
	Epoch string `json:"epoch"`
	// Current is a hash of the one valid token.
	Current string `json:"current"`
	// Scopes are the scopes that may be requested.
	Scopes []string `json:"scopes"`
	// ClientAddress is the address the family is bound to, empty for any.
	ClientAddress string    `json:"clientAddress,omitempty"`
	Expires       time.Time `json:"expires"`
}
