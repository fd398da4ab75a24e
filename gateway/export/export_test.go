package export_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/api/problem"
	"github.com/openmep/mep/gateway/export"
)

var update = flag.Bool("update", false, "write the golden files")

var exporters = map[string]func(export.Table) ([]byte, error){"kong": export.Kong, "envoy": export.Envoy}

func table(t testing.TB, file string) export.Table {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	var doc export.Table
	require.NoError(t, json.Unmarshal(text, &doc))
	for _, r := range doc.Routes {
		if r.Definition != nil {
			var faults problem.InvalidParams
			r.Definition.Check(&faults)
			require.Empty(t, faults, r.ID)
		}
	}
	return doc
}

func TestTablesAreExported(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.json")
	require.NoError(t, err)
	require.NotEmpty(t, inputs)
	for _, input := range inputs {
		for format, write := range exporters {
			golden := strings.TrimSuffix(input, "json") + format + ".yaml"
			t.Run(filepath.Base(golden), func(t *testing.T) {
				got, err := write(table(t, input))
				require.NoError(t, err)
				if *update {
					require.NoError(t, os.WriteFile(golden, got, 0o600))
				}
				want, err := os.ReadFile(golden)
				require.NoError(t, err)
				require.Equal(t, string(want), string(got))
				again, err := write(table(t, input))
				require.NoError(t, err)
				require.Equal(t, string(got), string(again), "the same every time")
			})
		}
	}
}

func TestAnEmptyTableIsExported(t *testing.T) {
	for format, write := range exporters {
		got, err := write(export.Table{})
		require.NoError(t, err)
		require.NotContains(t, string(got), "no counterpart", format)
		require.NotContains(t, string(got), "null", format)
	}
}

// TestAStaticRouteHasWhatItsServiceAndAllServicesHave checks that a policy of a route is completed as the gateway completes it.
func TestAStaticRouteHasWhatItsServiceAndAllServicesHave(t *testing.T) {
	policies := []gateway.PolicyView{
		{Name: gateway.AnyService, Policy: gateway.Policy{MaxBody: 4711, Quotas: []gateway.Quota{{Calls: 77, Per: "hour"}}}},
		{Name: "hello", Policy: gateway.Policy{Quotas: []gateway.Quota{{Calls: 33, Per: "minute"}}}},
	}
	for service, quota := range map[string]string{"hello": "minute: 33", "": "hour: 77"} {
		route := gateway.Route{ID: "way", Paths: []string{"/way/**"}, Service: service, Policy: gateway.Policy{Upstream: gateway.Upstream{Proxy: "direct"}}}
		got, err := export.Kong(export.Table{Policies: policies, Routes: []*gateway.RouteView{{
			ID: "way", Kind: gateway.KindStatic, Policy: "way", Service: service, Paths: route.Paths, Definition: &route,
			Targets: []gateway.TargetView{{URL: "http://192.0.2.1"}},
		}}})
		require.NoError(t, err)
		require.Contains(t, string(got), "allowed_payload_size: 4711")
		require.Contains(t, string(got), quota)
		require.Equal(t, 1, strings.Count(string(got), "name: rate-limiting"))
	}
}

// TestTextsStayWhereTheyBelong checks that texts from third parties cannot break out of the comments and values that contain them.
func TestTextsStayWhereTheyBelong(t *testing.T) {
	const evil = "x\nadmin: true\r\n\u2028admin: true"
	in := export.Table{Routes: []*gateway.RouteView{{
		ID: "service:" + evil, Kind: gateway.KindService, Service: evil, Policy: evil, Paths: []string{"/services/" + evil + "/**", "/services/x/**"},
		Targets: []gateway.TargetView{{URL: "http://h"}, {URL: "http://[" + evil}},
	}}, Policies: []gateway.PolicyView{{Name: evil, Policy: gateway.Policy{
		ExternalAuth: &gateway.ExternalAuth{URL: evil}, Headers: gateway.Headers{Set: map[string]string{"X-A": evil}},
	}}}}
	for format, write := range exporters {
		got, err := write(in)
		require.NoError(t, err)
		var doc map[string]any
		require.NoError(t, yaml.Unmarshal(got, &doc))
		require.NotContains(t, doc, "admin", format)
		for line := range strings.SplitSeq(string(got), "\n") {
			require.False(t, strings.HasPrefix(line, "admin"), format)
		}
	}
}

// FuzzExport checks that every accepted route is exported as YAML with valid regular expressions.
func FuzzExport(f *testing.F) {
	f.Add(`{"paths":["/a/**"],"urls":["https://h:1/b"],"rewrite":"/x/{rest}","headers":{"X-A":"*"},"policy":{"rules":[{"effect":"deny","sources":["::/0"]}]}}`)
	f.Add(`{"paths":["/a/*/b/*"],"hosts":["*.example.com"],"urls":["h2c://[::1]:7"],"strip":1,"policy":{"maxBody":7,"headers":{"set":{"X-B":"%"}}}}`)
	f.Add(`{"paths":["/a/b.c","/x(y)"],"urls":["http://h/p","http://i/p","http://i/q"],"methods":["GET","M-SEARCH"],"strip":2}`)
	f.Fuzz(func(t *testing.T, text string) {
		var r gateway.Route
		if json.Unmarshal([]byte(text), &r) != nil {
			return
		}
		r.ID = "fuzz"
		var faults problem.InvalidParams
		if r.Check(&faults); len(faults) > 0 {
			return
		}
		view := &gateway.RouteView{ID: r.ID, Kind: gateway.KindStatic, Hosts: r.Hosts, Paths: r.Paths, Methods: r.Methods, Headers: r.Headers, Definition: &r}
		for _, url := range r.URLs {
			view.Targets = append(view.Targets, gateway.TargetView{URL: url})
		}
		for format, write := range exporters {
			got, err := write(export.Table{Routes: []*gateway.RouteView{view}})
			require.NoError(t, err, format)
			var doc map[string]any
			require.NoError(t, yaml.Unmarshal(got, &doc), "%s: %s", format, got)
			for _, expression := range all(doc) {
				_, err := regexp.Compile(expression)
				require.NoError(t, err, format)
			}
		}
	})
}

// all returns the regular expressions of a document.
func all(v any) []string {
	var list []string
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			if s, ok := member.(string); ok && name == "regex" {
				list = append(list, s)
			}
			list = append(list, all(member)...)
		}
	case []any:
		for _, element := range v {
			list = append(list, all(element)...)
		}
	case string:
		if s, ok := strings.CutPrefix(v, "~/"); ok {
			list = append(list, "/"+s)
		}
	}
	return list
}
