package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/openmep/mep/api/signing"

	"github.com/openmep/mep/api/internal/retry"
)

const (
	// maxAnswer limits how many bytes of a response are read.
	maxAnswer = 64 << 10
	// maxLife is the longest token lifetime that is believed.
	maxLife = 365 * 24 * time.Hour
)

// token is an access token and its lifetime.
type token struct {
	text    string
	refresh time.Time // when a fifth of its life is left
	expires time.Time
}

// fetch requests a token from the service once. An error response is returned as an *Error.
func (s *Source) fetch(ctx context.Context) (*token, error) {
	req, err := s.request(ctx)
	if err != nil {
		return nil, err
	}
	asked := time.Now()
	resp, err := s.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", s.target, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("POST %s: %s: %w", s.target, resp.Status, refusal(resp, body))
	}
	t, err := readToken(body, asked)
	if err != nil {
		return nil, fmt.Errorf("POST %s: %w", s.target, err)
	}
	return t, nil
}

func (s *Source) request(ctx context.Context) (*http.Request, error) {
	form := url.Values{"grant_type": {GrantClientCredentials}}
	if len(s.scopes) > 0 {
		form.Set("scope", strings.Join(s.scopes, " "))
	}
	var body io.Reader
	if !s.signed {
		body = strings.NewReader(form.Encode())
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.target, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "mep-client")
	if s.signed {
		signing.Sign(req, s.accessKeyID, string(s.secretKey), nil, s.signingTime())
		return req, nil
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	// RFC 6749 2.3.1 requires both to be escaped; the keys may well contain a plus sign.
	req.SetBasicAuth(url.QueryEscape(s.accessKeyID), url.QueryEscape(string(s.secretKey)))
	return req, nil
}

// signingTime returns the present time, but never the same second twice: the service accepts each signature
// only once.
func (s *Source) signingTime() time.Time {
	at := time.Now().Truncate(time.Second)
	if !at.After(s.signedAt) {
		at = s.signedAt.Add(time.Second)
	}
	s.signedAt = at
	return at
}

func readToken(body []byte, asked time.Time) (*token, error) {
	var answer TokenResponse
	if err := json.Unmarshal(body, &answer); err != nil {
		// An error of encoding/json may quote a part of the token.
		return nil, errors.New("the answer is no token response: is a token service there?")
	}
	life := min(time.Duration(min(answer.ExpiresIn, int(maxLife/time.Second)))*time.Second, maxLife)
	switch {
	case answer.AccessToken == "":
		return nil, errors.New("the answer has no access_token")
	case !strings.EqualFold(answer.TokenType, TokenTypeBearer):
		return nil, fmt.Errorf("the token is of the type %q, where %s is needed", answer.TokenType, TokenTypeBearer)
	case life <= 0:
		return nil, errors.New("the answer has no expires_in")
	}
	return &token{text: answer.AccessToken, refresh: asked.Add(life - life/5), expires: asked.Add(life)}, nil
}

// refusal converts an error response into an *Error.
func refusal(resp *http.Response, body []byte) *Error {
	e := &Error{}
	if json.Unmarshal(body, e) != nil || e.Code == "" {
		e.Code, e.Description = http.StatusText(resp.StatusCode), "the answer is no OAuth2 error: is a token service there?"
	}
	e.Status, e.RetryAfter = resp.StatusCode, retry.After(resp.Header.Get("Retry-After"))
	return e
}
