package state

import (
	"encoding/json"
	"net/url"
	"time"
)

// What every part of the platform reads to know who calls: never a secret, not even an encrypted one.
const (
	PrefixCredentials = Root + "auth/credentials/"
	PrefixSigningKeys = Root + "auth/keys/"
	PrefixIssuers     = Root + "auth/issuers/"
	PrefixRevoked     = Root + "auth/revoked/"
)

// AuthRoot is the prefix of what only mepauth reads, so that an etcd role can keep the others out.
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

// TokenRoot is the prefix of what mepauth reads when it is asked for, and nobody follows.
const TokenRoot = "/mep/tokens/v1/" //nolint:gosec // is no token

// PrefixRefresh is where refresh tokens are.
const PrefixRefresh = TokenRoot + "refresh/"

// RefreshKeys is the prefix of the families of refresh tokens of an access key.
func RefreshKeys(accessKeyID string) string {
	return PrefixRefresh + url.PathEscape(accessKeyID) + "/"
}

// CredentialKey is the key of what is known of an access key, apart from its secrets.
func CredentialKey(accessKeyID string) string { return PrefixCredentials + url.PathEscape(accessKeyID) }

// SecretKey is the key of the secrets of an access key.
func SecretKey(accessKeyID string) string { return PrefixSecrets + url.PathEscape(accessKeyID) }

// HolderKeys is the prefix of the index of the access keys of a subject; an index key is followed by the access key and holds
// nothing.
func HolderKeys(subject string) string { return PrefixHolders + url.PathEscape(subject) + "/" }

// HolderKey is the index key of an access key.
func HolderKey(subject, accessKeyID string) string {
	return HolderKeys(subject) + url.PathEscape(accessKeyID)
}

// AttemptsKey is the key of the failed attempts to use an access key, which need not exist.
func AttemptsKey(accessKeyID string) string { return PrefixAttempts + url.PathEscape(accessKeyID) }

// AccessKeyID is the access key a key below the prefix stands for.
func AccessKeyID(prefix, key string) (string, error) { return url.PathUnescape(key[len(prefix):]) }

// SigningKeyKey is the key of the public part of a signing key, PrivateKeyKey that of the private one.
func SigningKeyKey(kid string) string { return PrefixSigningKeys + kid }

// PrivateKeyKey is the key of the private part of a signing key.
func PrivateKeyKey(kid string) string { return PrefixPrivateKeys + kid }

// IssuerKey is the key of an issuer name.
func IssuerKey(issuer string) string { return PrefixIssuers + url.PathEscape(issuer) }

// RevokedKey is the key of a revoked token.
func RevokedKey(tokenID string) string { return PrefixRevoked + tokenID }

// The scopes of tokens.
const (
	ScopeMp1 = "mp1" // what apps do over Mp1
	ScopeMm5 = "mm5" // what the MEC platform manager does
	ScopeOps = "ops" // what operators do
)

// OriginCredentials marks an instance that became known when credentials were provisioned for it.
const OriginCredentials AppOrigin = "credentials"

// Credential is what is known of an access key, apart from its secrets. While the record is there with the epoch a token was
// issued under and is not disabled, the token is good; so a credential that is deleted takes its tokens along.
type Credential struct {
	Version
	// Subject is the appInstanceId, or the name of a manager.
	Subject string `json:"subject"`
	// Name is for people; may be empty.
	Name string `json:"name,omitempty"`
	// Scopes are what tokens may be issued for.
	Scopes []string `json:"scopes"`
	// Epoch changes when the tokens issued so far must no longer be taken.
	Epoch string `json:"epoch"`
	// Disabled refuses new tokens and those issued.
	Disabled bool `json:"disabled,omitempty"`
	// RefreshTokens says that refresh tokens are issued, too.
	RefreshTokens bool `json:"refreshTokens,omitempty"`
	// BindClientAddress makes tokens good only for the client address they were issued to.
	BindClientAddress bool `json:"bindClientAddress,omitempty"`
	// Created and Changed are when the record was first and last written.
	Created time.Time `json:"created"`
	Changed time.Time `json:"changed"`
}

// Secrets are the secret keys of an access key, the newest first. There are two while one is being replaced.
type Secrets struct {
	Version
	// Epoch is that of the credential the secrets belong to.
	Epoch   string   `json:"epoch"`
	Secrets []Secret `json:"secrets"`
}

// Secret is one secret key.
type Secret struct {
	ID string `json:"id"`
	// Sealed is the secret key, encrypted.
	Sealed  []byte    `json:"sealed"`
	Created time.Time `json:"created"`
	// Expires is when it is no longer taken; zero: never.
	Expires time.Time `json:"expires,omitzero"`
}

// SigningKey is the public part of a key that signs tokens.
type SigningKey struct {
	Version
	// Algorithm is the JWS algorithm, such as ES256.
	Algorithm string `json:"alg"`
	// JWK is the public key as RFC 7517 writes it.
	JWK json.RawMessage `json:"jwk"`
	// Created is when the key was made; NotBefore is when it begins to sign.
	Created   time.Time `json:"created"`
	NotBefore time.Time `json:"notBefore"`
	// Retired is when it ceases to sign, zero until a successor or an operator says so; Expires is when the last token it
	// signed has expired.
	Retired time.Time `json:"retired,omitzero"`
	Expires time.Time `json:"expires,omitzero"`
	// Verify is how long the key verifies after it ceased to sign, in seconds: the longest life of its tokens and a margin.
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
	// Replaced is when another name took its place, zero for the present one.
	Replaced time.Time `json:"replaced,omitzero"`
}

// Revoked is a token that was revoked. The record ends with the token's life.
type Revoked struct {
	Version
	// Expires is when the token would have expired.
	Expires time.Time `json:"expires"`
}

// Attempts is what is remembered of the use of an access key.
type Attempts struct {
	Version
	// Sources are the client addresses from which the key failed lately.
	Sources map[string]Failures `json:"sources,omitempty"`
	// All counts over all sources but the trusted ones.
	All Failures `json:"all"`
	// Trusted are addresses from which the key was used with success, the latest first. A key that is locked for everybody
	// is not locked for them.
	Trusted []string `json:"trusted,omitempty"`
}

// Failures counts failed attempts.
type Failures struct {
	// First is when the window opened in which Count is counted.
	First time.Time `json:"first,omitzero"`
	Count int       `json:"count,omitempty"`
	// Until is when a lock ends, zero without one.
	Until time.Time `json:"until,omitzero"`
}

// Refresh is a family of refresh tokens: each of them is good until it is exchanged for the next.
type Refresh struct {
	Version
	AccessKeyID string `json:"accessKeyId"`
	// Epoch is that of the credential when the family began.
	Epoch string `json:"epoch"`
	// Current is a hash of the one token that is good.
	Current string `json:"current"`
	// Scopes are what may be asked for.
	Scopes []string `json:"scopes"`
	// ClientAddress is the address the family is bound to, empty for any.
	ClientAddress string    `json:"clientAddress,omitempty"`
	Expires       time.Time `json:"expires"`
}
