package openapi_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/openapi"
)

func TestEveryInterfaceHasItsDocument(t *testing.T) {
	require.Equal(t, []string{"mec_app_support", "mec_service_mgmt", "mep_auth", "mep_dns", "mep_gateway", "mm5", "ops"}, openapi.Documents())
	for _, name := range openapi.Documents() {
		text, ok := openapi.YAML(name)
		require.True(t, ok, name)
		require.True(t, strings.HasPrefix(string(text), "openapi: 3.1.0\n"), name)

		clear(text)
		again, _ := openapi.YAML(name)
		require.NotEqual(t, text, again, "%s: the caller may do with its copy what it likes", name)
	}
}

func TestThereIsNothingElse(t *testing.T) {
	for _, name := range []string{"", "nothing", "mm5.yaml", "../openapi/mm5", "openapi.go"} {
		_, ok := openapi.YAML(name)
		require.False(t, ok, name)
	}
}
