package auth

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/openmep/mep/api/signing"
)

// Credentials is a credentials file, such as the one the platform writes for its MEPM. It holds all a client needs: its
// identity, the keys that prove it, and the addresses of the platform.
type Credentials struct {
	// AccessKeyID is 20 letters, digits and characters of "_+/=".
	AccessKeyID string `json:"accessKeyId"`
	// SecretKey is 64 letters, digits and characters of "_+/=".
	SecretKey Secret `json:"secretKey"`
	// AppInstanceID is the app instance the credentials belong to; absent when they are not an app's.
	AppInstanceID string `json:"appInstanceId,omitempty"`
	// Name is a display name.
	Name string `json:"name,omitempty"`
	// Scopes lists the scopes a token may have.
	Scopes []string `json:"scopes"`
	// URLs maps the name of each listener of the platform (auth, mp1, mm5 and so on) to its URL.
	URLs map[string]string `json:"urls"`
	// CAFile is a PEM file with the CA certificates to trust for the platform. When it is absent, the system's own are trusted.
	// A relative path is relative to the directory of the credentials file.
	CAFile string `json:"caFile,omitempty"`
}

// AuthListener is the key of the token service in Credentials.URLs.
const AuthListener = "auth"

// String names the holder without revealing the secret key.
func (c Credentials) String() string {
	s := "credentials " + c.AccessKeyID
	if c.Name != "" {
		s += " of " + c.Name
	}
	if c.AppInstanceID != "" {
		s += " (app instance " + c.AppInstanceID + ")"
	}
	return s
}

// LogValue returns all fields except the secret key.
func (c Credentials) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("access_key_id", c.AccessKeyID), slog.String("app_instance_id", c.AppInstanceID),
		slog.String("name", c.Name), slog.Any("scopes", c.Scopes), slog.Any("urls", c.URLs), slog.String("ca_file", c.CAFile),
	)
}

// LoadCredentials reads a credentials file. The error says what is wrong with the file and how to fix it. A relative CAFile is
// resolved against the directory of the file.
func LoadCredentials(path string) (*Credentials, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("credentials file: %w: name the file that was given out for this client", err)
	}
	if err != nil {
		return nil, fmt.Errorf("credentials file: %w", err)
	}
	c := &Credentials{}
	if err := c.parse(text); err != nil {
		return nil, fmt.Errorf("credentials file %s: %w", path, err)
	}
	if c.CAFile != "" && !filepath.IsAbs(c.CAFile) {
		c.CAFile = filepath.Join(filepath.Dir(path), c.CAFile)
	}
	return c, nil
}

func (c *Credentials) parse(text []byte) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	// A misspelt caFile must not go unnoticed.
	dec.DisallowUnknownFields()
	if err := dec.Decode(c); err != nil {
		return decodeFault(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the JSON object; remove it")
	}
	if err := checkKeys(c.AccessKeyID, c.SecretKey); err != nil {
		return err
	}
	for _, listener := range slices.Sorted(maps.Keys(c.URLs)) {
		if err := checkBase(c.URLs[listener]); err != nil {
			return fmt.Errorf("urls.%s %w", listener, err)
		}
	}
	return nil
}

// decodeFault turns an error of encoding/json into one that says how to fix the file, without quoting a value of it.
func decodeFault(err error) error {
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		kind, _, _ := strings.Cut(wrong.Value, " ") // the rest may be the value itself
		return fmt.Errorf("%s cannot be a JSON %s: correct it", cmp.Or(wrong.Field, "the whole"), kind)
	}
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("it is no JSON at byte %d (%w): have the platform write it again", syntax.Offset, err)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("it ends too early: have the platform write it again")
	}
	return fmt.Errorf("%w: remove or correct it", err)
}

func checkKeys(accessKeyID string, secretKey Secret) error {
	if !signing.ValidAccessKeyID(accessKeyID) {
		return fmt.Errorf(`accessKeyId must be the %d letters, digits and characters of "_+/=" that the platform gave out`,
			signing.AccessKeyIDLength)
	}
	if !signing.ValidSecretKey(string(secretKey)) {
		return fmt.Errorf(`secretKey must be the %d letters, digits and characters of "_+/=" that the platform gave out`,
			signing.SecretKeyLength)
	}
	return nil
}

// checkBase checks the URL of a listener. The error completes a sentence and does not quote the URL.
func checkBase(raw string) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Host == "":
		return errors.New(`must be an absolute http or https URL such as "https://mep.example:8443"`)
	case u.User != nil, u.RawQuery != "", u.Fragment != "":
		return errors.New("must be a URL without user, query and fragment")
	}
	return nil
}

// HTTPClient returns a client that trusts only CAFile, or the system's CAs when CAFile is empty. It requires TLS 1.2 or later
// and limits each request to DefaultTimeout.
func (c *Credentials) HTTPClient() (*http.Client, error) {
	settings := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("CA certificates of the platform: %w", err)
		}
		settings.RootCAs = x509.NewCertPool()
		if !settings.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("CA certificates of the platform: %s has no certificate in PEM: copy the platform's CA there", c.CAFile)
		}
	}
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		TLSClientConfig:     settings,
		ForceAttemptHTTP2:   true,
		MaxIdleConnsPerHost: 16,
		IdleConnTimeout:     idleTimeout,
	}
	return &http.Client{Transport: transport, Timeout: DefaultTimeout}, nil
}

// Source returns a source of tokens with all the scopes of the credentials. It sends its requests with httpClient, or with the
// result of HTTPClient when httpClient is nil.
func (c *Credentials) Source(httpClient *http.Client) (*Source, error) {
	if c.URLs[AuthListener] == "" {
		return nil, fmt.Errorf("%s: urls.%s is missing, the URL of the platform's token service", c, AuthListener)
	}
	if httpClient == nil {
		var err error
		if httpClient, err = c.HTTPClient(); err != nil {
			return nil, err
		}
	}
	return NewSource(Config{
		URL: c.URLs[AuthListener], AccessKeyID: c.AccessKeyID, SecretKey: c.SecretKey, Scopes: c.Scopes, HTTPClient: httpClient,
	})
}
