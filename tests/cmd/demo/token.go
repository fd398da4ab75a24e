package main

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"
)

// claims holds the claims of a token. They are not verified here: that is up to the platform.
type claims struct {
	KeyID    string `json:"kid"` // of the header
	Issuer   string `json:"iss"`
	Subject  string `json:"sub"`
	Scope    string `json:"scope"`
	IssuedAt int64  `json:"iat"`
	Expires  int64  `json:"exp"`
}

func (c claims) life() time.Duration { return time.Duration(c.Expires-c.IssuedAt) * time.Second }

// read decodes the header and the payload of a token.
func read(token string) (c claims, err error) {
	header, rest, _ := strings.Cut(token, ".")
	payload, _, _ := strings.Cut(rest, ".")
	for _, part := range []string{header, payload} {
		text, err := base64.RawURLEncoding.DecodeString(part)
		if err != nil {
			return c, err
		}
		if err := json.Unmarshal(text, &c); err != nil {
			return c, err
		}
	}
	return c, nil
}
