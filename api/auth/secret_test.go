package auth_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/auth"
)

func TestASecretIsNotSeen(t *testing.T) {
	const secret = auth.Secret("hunter2")
	holder := struct {
		Name   string
		Secret auth.Secret
		List   []auth.Secret
		Point  *auth.Secret
	}{"n", secret, []auth.Secret{secret}, new(secret)}
	creds := auth.Credentials{AccessKeyID: accessKey, SecretKey: secret, Name: "mepm", AppInstanceID: "i", URLs: map[string]string{"auth": "u"}}
	config := auth.Config{URL: "u", SecretKey: secret}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%20s", "%t"} {
		for _, value := range []any{secret, holder, &holder, creds, &creds, config, errors.New(fmt.Sprint(secret))} {
			text := fmt.Sprintf(verb, value)
			require.NotContains(t, text, "hunter2", verb)
			require.NotContains(t, text, "68756e74657232", verb)
			require.NotContains(t, text, "68756E74657232", verb)
		}
	}
	var log bytes.Buffer
	for _, handler := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(handler).Info("secrets", "secret", secret, "credentials", creds, "pointer", &creds)
	}
	require.NotContains(t, log.String(), "hunter2")
	require.Contains(t, log.String(), "[redacted]")
	require.Contains(t, log.String(), accessKey)

	require.Equal(t, "[redacted]", fmt.Sprint(secret))
	require.Empty(t, fmt.Sprint(auth.Secret("")))
	require.Equal(t, "credentials "+accessKey+" of mepm (app instance i)", creds.String())
	require.Equal(t, "credentials "+accessKey, fmt.Sprint(auth.Credentials{AccessKeyID: accessKey}))
}

func TestASecretIsWrittenToJSONAsItIs(t *testing.T) {
	requireJSON(t, `"hunter2"`, auth.Secret("hunter2"))
	var s auth.Secret
	require.NoError(t, json.Unmarshal([]byte(`"hunter2"`), &s))
	require.Equal(t, "hunter2", string(s))
}
