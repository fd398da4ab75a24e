package auth

import (
	"encoding/json"
	"fmt"
	"time"
)

// Confs is the body of a request to provision the credentials of an app instance, and of its response. The shape is
// EdgeGallery's; refreshTokens and bindClientAddress are additions. Null members count as absent.
type Confs struct {
	// AuthInfo says how the app instance authenticates.
	AuthInfo AuthInfo `json:"authInfo"`
	// AppInfo describes the app.
	AppInfo AppInfo `json:"appInfo"`
}

// AuthInfo says how an app instance authenticates.
type AuthInfo struct {
	// Credentials is the pair of keys.
	Credentials KeyPair `json:"credentials"`
	// RefreshTokens enables refresh tokens for the app instance.
	RefreshTokens bool `json:"refreshTokens,omitempty"`
	// BindClientAddress makes tokens valid only for the address that requested them.
	BindClientAddress bool `json:"bindClientAddress,omitempty"`
}

// KeyPair is an access key id and its secret key. In a request each may be absent; the platform then generates it.
type KeyPair struct {
	// AccessKeyID is 20 letters, digits and characters of "_+/=".
	AccessKeyID string `json:"accessKeyId,omitempty"`
	// SecretKey is 64 letters, digits and characters of "_+/=". A response has it only when the platform generated it.
	SecretKey Secret `json:"secretKey,omitempty"`
}

// AppInfo describes an app.
type AppInfo struct {
	// AppName is the name of the app, at most 128 bytes.
	AppName string `json:"appName"`
	// RequiredServices names the services the app may discover, at most 256 names of 1 to 128 bytes each.
	RequiredServices []string `json:"requiredServices,omitzero"`
}

// ConfsRecord is the platform's record of the credentials of an app instance. It never contains a secret key.
type ConfsRecord struct {
	// AppInstanceID is the id of the app instance.
	AppInstanceID string `json:"app_ins_id"`
	// AccessKeyID is its access key id.
	AccessKeyID string `json:"ak"`
	// AppName is the name of the app.
	AppName string `json:"app_name"`
	// RequiredServices names the services the app may discover.
	RequiredServices ServiceNames `json:"required_services"`
	// Enabled reports whether the credentials can be used.
	Enabled bool `json:"enabled"`
	// RefreshTokens reports whether refresh tokens are enabled for the app instance.
	RefreshTokens bool `json:"refreshTokens"`
	// BindClientAddress reports whether tokens are valid only for the address that requested them.
	BindClientAddress bool `json:"bindClientAddress"`
	// Created is when the app instance first got credentials.
	Created time.Time `json:"created"`
	// Changed is when the credentials, or any other part of the record, last changed.
	Changed time.Time `json:"changed"`
	// Secrets describes the valid secret keys, without the keys themselves: one, or two for a while after a rotation.
	Secrets []SecretInfo `json:"secrets"`
}

// SecretInfo describes a secret key.
type SecretInfo struct {
	// ID identifies the secret key within the record.
	ID string `json:"id"`
	// Created is when the secret key was provisioned.
	Created time.Time `json:"created"`
	// Expires is when the secret key expires; absent when no expiry is set.
	Expires *time.Time `json:"expires,omitempty"`
}

// ServiceNames is a list of names that marshals to a JSON string, which holds the JSON text of an array: "[]" when there are
// none.
type ServiceNames []string

// MarshalText returns the JSON text of the array.
func (n ServiceNames) MarshalText() ([]byte, error) {
	if len(n) == 0 {
		return []byte("[]"), nil
	}
	return json.Marshal([]string(n))
}

// UnmarshalText parses the JSON text of an array. An empty text is an empty array.
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

// ConfsPatch changes members of a ConfsRecord; absent members stay as they are.
type ConfsPatch struct {
	// Enabled switches the credentials on or off. While they are off, no token is issued for them.
	Enabled *bool `json:"enabled,omitempty"`
	// RefreshTokens enables or disables refresh tokens for the app instance.
	RefreshTokens *bool `json:"refreshTokens,omitempty"`
	// BindClientAddress makes tokens valid only for the address that requested them, or for any.
	BindClientAddress *bool `json:"bindClientAddress,omitempty"`
}

// Rotation asks for a new secret key for an access key id.
type Rotation struct {
	// SecretKey is the new secret key; the platform generates one when it is absent.
	SecretKey Secret `json:"secretKey,omitempty"`
	// OverlapSeconds is how long the previous secret key stays valid, 0 to 2592000 (30 days); when it is absent, the platform
	// decides.
	OverlapSeconds *int `json:"overlapSeconds,omitempty"`
}

// RotationResult is the response to a Rotation.
type RotationResult struct {
	// AccessKeyID is the access key id, which stays the same.
	AccessKeyID string `json:"accessKeyId"`
	// SecretKey is the new secret key, present only when the platform generated it. It is never shown again.
	SecretKey Secret `json:"secretKey,omitempty"`
	// PreviousExpires is when the previous secret key expires.
	PreviousExpires time.Time `json:"previousExpires"`
}
