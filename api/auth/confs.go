package auth

import (
	"encoding/json"
	"fmt"
	"time"
)

// Confs are the credentials of an app instance as they are provisioned, and the answer to that. The shape is EdgeGallery's;
// refreshTokens and bindClientAddress are additions. Members that are null count as absent.
type Confs struct {
	// AuthInfo says how the app instance authenticates.
	AuthInfo AuthInfo `json:"authInfo"`
	// AppInfo says what the app is.
	AppInfo AppInfo `json:"appInfo"`
}

// AuthInfo says how an app instance authenticates.
type AuthInfo struct {
	// Credentials is the pair of keys.
	Credentials KeyPair `json:"credentials"`
	// RefreshTokens lets the app instance have refresh tokens.
	RefreshTokens bool `json:"refreshTokens,omitempty"`
	// BindClientAddress makes tokens valid only for the address that asked for them.
	BindClientAddress bool `json:"bindClientAddress,omitempty"`
}

// KeyPair is an access key id and its secret key. In a request each may be absent; the platform then generates it.
type KeyPair struct {
	// AccessKeyID is 20 letters, digits and characters of "_+/=".
	AccessKeyID string `json:"accessKeyId,omitempty"`
	// SecretKey is 64 letters, digits and characters of "_+/=". An answer has it only when the platform generated it.
	SecretKey Secret `json:"secretKey,omitempty"`
}

// AppInfo says what an app is.
type AppInfo struct {
	// AppName is the name of the app, at most 128 bytes.
	AppName string `json:"appName"`
	// RequiredServices names the services the app may discover, at most 256 names of 1 to 128 bytes each.
	RequiredServices []string `json:"requiredServices,omitzero"`
}

// ConfsRecord is what the platform keeps of the credentials of an app instance. No secret key is ever in it.
type ConfsRecord struct {
	// AppInstanceID is the app instance.
	AppInstanceID string `json:"app_ins_id"`
	// AccessKeyID is its access key id.
	AccessKeyID string `json:"ak"`
	// AppName is the name of the app.
	AppName string `json:"app_name"`
	// RequiredServices names the services the app may discover.
	RequiredServices ServiceNames `json:"required_services"`
	// Enabled says whether the credentials work.
	Enabled bool `json:"enabled"`
	// RefreshTokens says whether the app instance has refresh tokens.
	RefreshTokens bool `json:"refreshTokens"`
	// BindClientAddress says whether tokens are valid only for the address that asked for them.
	BindClientAddress bool `json:"bindClientAddress"`
	// Created is when the app instance first had credentials.
	Created time.Time `json:"created"`
	// Changed is when the credentials, or anything else of the record, last changed.
	Changed time.Time `json:"changed"`
	// Secrets lists the secret keys that are valid, without the keys: one, or two for a while after a rotation.
	Secrets []SecretInfo `json:"secrets"`
}

// SecretInfo tells of a secret key.
type SecretInfo struct {
	// ID names the secret key within the record.
	ID string `json:"id"`
	// Created is when the secret key was provisioned.
	Created time.Time `json:"created"`
	// Expires is when it stops being valid; absent when nothing has been decided about that.
	Expires *time.Time `json:"expires,omitempty"`
}

// ServiceNames is a list of names that is in JSON one string, with the JSON text of an array in it: "[]" when there are none.
type ServiceNames []string

// MarshalText returns the JSON text of the array.
func (n ServiceNames) MarshalText() ([]byte, error) {
	if len(n) == 0 {
		return []byte("[]"), nil
	}
	return json.Marshal([]string(n))
}

// UnmarshalText reads the JSON text of an array. An empty text is an empty array.
func (n *ServiceNames) UnmarshalText(text []byte) error {
	*n = nil
	if len(text) == 0 {
		return nil
	}
	if err := json.Unmarshal(text, (*[]string)(n)); err != nil {
		return fmt.Errorf("required_services must hold the JSON text of an array of strings: %w", err)
	}
	return nil
}

// ConfsPatch changes members of a ConfsRecord; those that are absent stay as they are.
type ConfsPatch struct {
	// Enabled switches the credentials on or off. Off, no token is issued for them.
	Enabled *bool `json:"enabled,omitempty"`
	// RefreshTokens lets the app instance have refresh tokens, or not.
	RefreshTokens *bool `json:"refreshTokens,omitempty"`
	// BindClientAddress makes tokens valid only for the address that asked for them, or for any.
	BindClientAddress *bool `json:"bindClientAddress,omitempty"`
}

// Rotation asks for a new secret key for an access key id.
type Rotation struct {
	// SecretKey is the new secret key; the platform generates one when it is absent.
	SecretKey Secret `json:"secretKey,omitempty"`
	// OverlapSeconds is for how long the previous secret key stays valid, 0 to 2592000 (30 days); absent leaves it to the
	// platform.
	OverlapSeconds *int `json:"overlapSeconds,omitempty"`
}

// RotationResult is the answer to a Rotation.
type RotationResult struct {
	// AccessKeyID is the access key id, which stays the same.
	AccessKeyID string `json:"accessKeyId"`
	// SecretKey is the new secret key, only when the platform generated it. It is never shown again.
	SecretKey Secret `json:"secretKey,omitempty"`
	// PreviousExpires is when the previous secret key stops being valid.
	PreviousExpires time.Time `json:"previousExpires"`
}
