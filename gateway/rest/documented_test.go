package rest_test

import (
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/api/openapi"
	"github.com/openmep/mep/gateway/rest"
	"github.com/openmep/mep/kit/httpx"
)

// TestWhatIsServedIsDocumented checks that the OpenAPI document and the API have the same operations with the same query parameters.
func TestWhatIsServedIsDocumented(t *testing.T) {
	m := start(t)
	router := httpx.NewRouter("", slog.New(slog.DiscardHandler), httpx.NewMetrics(prometheus.NewRegistry()), func() httpx.Limits { return httpx.Limits{} })
	(&rest.API{}).Mount(router)
	var served []string
	for _, r := range router.Routes() {
		served = append(served, r.Method+" "+regexp.MustCompile(`:(\w+)`).ReplaceAllString(r.Path, "{$1}"))
	}

	text, ok := openapi.YAML("mep_gateway")
	require.True(t, ok)
	type parameter struct {
		Ref  string `yaml:"$ref"`
		Name string `yaml:"name"`
		In   string `yaml:"in"`
	}
	var doc struct {
		Paths      map[string]map[string]yaml.Node `yaml:"paths"`
		Components struct {
			Parameters map[string]parameter `yaml:"parameters"`
		} `yaml:"components"`
	}
	require.NoError(t, yaml.Unmarshal(text, &doc))
	var documented []string
	for path, item := range doc.Paths {
		for method, node := range item {
			if !strings.HasPrefix(path, gateway.Base) || !slices.Contains([]string{"get", "put", "post", "delete"}, method) {
				continue
			}
			documented = append(documented, strings.ToUpper(method)+" "+path)
			var op struct {
				Parameters []parameter `yaml:"parameters"`
			}
			require.NoError(t, node.Decode(&op))
			var names []string
			for _, p := range op.Parameters {
				if p = doc.Components.Parameters[strings.TrimPrefix(p.Ref, "#/components/parameters/")]; p.In == "query" {
					names = append(names, p.Name)
				}
			}
			// An unknown parameter is refused with an error that lists the known ones.
			at := strings.TrimPrefix(path, gateway.Base)
			got := m.ask(strings.ToUpper(method), strings.NewReplacer("{id}", "a", "{name}", "a").Replace(at)+"?nothing=1", "{}")
			detail := got.refused(t, 400).Detail
			if names == nil {
				require.Contains(t, detail, "takes no query parameters", documented)
				continue
			}
			_, list, _ := strings.Cut(detail, "there is ")
			list, _, _ = strings.Cut(list, ";")
			require.ElementsMatch(t, names, strings.Split(list, ", "), at)
		}
	}
	require.ElementsMatch(t, documented, served)
}
