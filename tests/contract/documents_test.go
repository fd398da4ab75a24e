package contract_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/openapi"
)

func document(t *testing.T, name string) (*openapi3.T, string) {
	t.Helper()
	text, ok := openapi.YAML(name)
	require.True(t, ok)
	doc, err := openapi3.NewLoader().LoadFromData(text)
	require.NoError(t, err)
	return doc, string(text)
}

// mp1AndMm5 are the documents of the interfaces with the rules of MEC 009.
var mp1AndMm5 = []string{"mec_app_support", "mec_service_mgmt", "mm5"}

// withProblems are the documents of the interfaces on which every refusal is a problem document (RFC 9457).
var withProblems = append([]string{"mep_gateway"}, mp1AndMm5...)

func TestEveryOperationHasTheStatusCodesOfAllListeners(t *testing.T) {
	for _, name := range withProblems {
		doc, _ := document(t, name)
		for path, item := range doc.Paths.Map() {
			if path == "/health" {
				continue // it is for probes, and answers nothing but 200
			}
			if slices.Contains(mp1AndMm5, name) {
				require.Equal(t, item.Get != nil, item.Head != nil, "%s %s: HEAD works where GET does", name, path)
			}
			for method, op := range item.Operations() {
				at := name + " " + method + " " + path
				statuses := []int{400, 401, 403, 405, 414, 429, 431, 500, 503}
				if op.RequestBody != nil {
					statuses = append(statuses, 413, 415)
				}
				if len(item.Parameters) > 1 && op.Responses.Status(http.StatusCreated) == nil { // an id in the path, besides the id of the request
					statuses = append(statuses, 404)
				}
				if takes(op, "If-Match") {
					statuses = append(statuses, 412)
				}
				for _, status := range statuses {
					require.NotNil(t, op.Responses.Status(status), "%s: %d", at, status)
				}
				// Of other methods it is a condition like If-Match.
				conditional := takes(op, "If-None-Match") && (method == http.MethodGet || method == http.MethodHead)
				require.Equal(t, conditional, op.Responses.Status(http.StatusNotModified) != nil, at)
			}
		}
	}
}

func takes(op *openapi3.Operation, header string) bool {
	return op.Parameters.GetByInAndName(openapi3.ParameterInHeader, header) != nil
}

func TestEveryRefusalIsAProblemOfItsStatus(t *testing.T) {
	for _, name := range withProblems {
		doc, _ := document(t, name)
		for path, item := range doc.Paths.Map() {
			for method, op := range item.Operations() {
				for status, response := range op.Responses.Map() {
					code, err := strconv.Atoi(status)
					require.NoError(t, err)
					if code < 400 {
						continue
					}
					at := name + " " + method + " " + path + " " + status
					content := response.Value.Content.Get("application/problem+json")
					require.NotNil(t, content, at)
					const body = `{"type":"about:blank","title":"No","status":%,"detail":"because"}`
					for _, sent := range []int{code, code + 1} {
						problem := strings.Replace(body, "%", strconv.Itoa(sent), 1)
						require.Equal(t, sent == code, accepts(t, content.Schema, problem), "%s with the status %d", at, sent)
					}
				}
			}
		}
	}
}

// accepts reports whether a schema takes a value.
func accepts(t *testing.T, schema *openapi3.SchemaRef, text string) bool {
	t.Helper()
	var value any
	require.NoError(t, json.Unmarshal([]byte(text), &value))
	return schema.Value.VisitJSON(value, openapi3.EnableJSONSchema2020()) == nil
}

func TestNothingInADocumentIsLeftOver(t *testing.T) {
	for _, name := range withProblems {
		doc, text := document(t, name)
		used := make(map[string]bool)
		for _, m := range regexp.MustCompile(`#/components/(\w+/\w+)`).FindAllStringSubmatch(text, -1) {
			used[m[1]] = true
		}
		for _, schema := range eventSchemas(doc) {
			require.Contains(t, doc.Components.Schemas, schema)
			used["schemas/"+schema.(string)] = true
		}
		c := doc.Components
		for kind, names := range map[string][]string{
			"schemas": slices.Collect(maps.Keys(c.Schemas)), "responses": slices.Collect(maps.Keys(c.Responses)),
			"parameters": slices.Collect(maps.Keys(c.Parameters)), "headers": slices.Collect(maps.Keys(c.Headers)),
			"requestBodies": slices.Collect(maps.Keys(c.RequestBodies)), "callbacks": slices.Collect(maps.Keys(c.Callbacks)),
		} {
			for _, n := range names {
				require.True(t, used[kind+"/"+n], "%s: %s of the %s is used nowhere", name, n, kind)
			}
		}
	}
}

// eventSchemas are the schemas of the events of the document's stream, by the types of the events.
func eventSchemas(doc *openapi3.T) map[string]any {
	item := doc.Paths.Value(events)
	if item == nil {
		return nil
	}
	names, _ := item.Get.Responses.Status(http.StatusOK).Value.Content.Get("text/event-stream").Extensions["x-event-data"].(map[string]any)
	return names
}
