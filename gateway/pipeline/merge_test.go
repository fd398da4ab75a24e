package pipeline_test

import (
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/gateway/pipeline"
)

// fill gives every member of a struct a value of its own, by n.
func fill(v reflect.Value, n int) {
	for i := range v.NumField() {
		f, t := v.Field(i), v.Type().Field(i)
		switch {
		case t.Name == "Unknown":
		case f.Kind() == reflect.Struct:
			fill(f, n)
		case f.Kind() == reflect.Pointer && f.Type().Elem().Kind() == reflect.Struct:
			f.Set(reflect.New(f.Type().Elem()))
			fill(f.Elem(), n)
		case f.Kind() == reflect.Pointer:
			f.Set(reflect.New(f.Type().Elem()))
			f.Elem().SetBool(n == 1)
		case f.Kind() == reflect.Slice && f.Type().Elem().Kind() == reflect.Struct:
			f.Set(reflect.MakeSlice(f.Type(), n, n))
		case f.Kind() == reflect.Slice:
			f.Set(reflect.MakeSlice(f.Type(), n, n))
		case f.Kind() == reflect.Map:
			f.Set(reflect.MakeMap(f.Type()))
			f.SetMapIndex(reflect.ValueOf(string(rune('a'+n))), reflect.ValueOf("x"))
		case f.Kind() == reflect.String:
			f.SetString(string(rune('a' + n)))
		case f.Kind() == reflect.Bool:
			f.SetBool(true)
		case f.CanInt():
			f.SetInt(int64(n))
		default:
			panic(t.Name)
		}
	}
}

func full(n int) gateway.Policy {
	var p gateway.Policy
	fill(reflect.ValueOf(&p).Elem(), n)
	return p
}

// TestWhatAPolicyLeavesOpen goes through all members of a policy, also those that are added later.
func TestWhatAPolicyLeavesOpen(t *testing.T) {
	t.Parallel()
	base, p := full(1), full(2)
	require.Equal(t, base, pipeline.Merge(gateway.Policy{}, base), "what it does not say is as the base says")
	require.Equal(t, p, pipeline.Merge(p, gateway.Policy{}))
	require.Equal(t, p, pipeline.Merge(p, base), "what it says counts")
	require.Equal(t, full(1), base, "the base is not changed")
}

func TestWhatIsReplacedAsAWhole(t *testing.T) {
	t.Parallel()
	base := gateway.Policy{
		Rules: []gateway.Rule{{Effect: gateway.Allow}}, Default: gateway.Deny, Scopes: []string{"mp1"}, KeepAuthorization: true,
		ExternalAuth: &gateway.ExternalAuth{URL: "http://a", FailOpen: true}, Quotas: []gateway.Quota{{Calls: 1, Per: "day"}},
		Headers: gateway.Headers{Set: map[string]string{"A": "1", "B": "2"}}, Timeouts: gateway.Timeouts{Connect: "1s", Total: "2s"},
	}
	m := pipeline.Merge(gateway.Policy{Default: gateway.Allow}, base)
	require.Len(t, m.Rules, 1)
	require.Equal(t, gateway.Allow, m.Default)
	m = pipeline.Merge(gateway.Policy{Rules: []gateway.Rule{{Effect: gateway.Deny}}}, base)
	require.Equal(t, []gateway.Rule{{Effect: gateway.Deny}}, m.Rules, "lists replace each other")
	require.Equal(t, gateway.Deny, m.Default, "what the rest gets is not let through by less")
	m = pipeline.Merge(gateway.Policy{Rules: []gateway.Rule{}}, base)
	require.Empty(t, m.Rules, "no rules is something else than nothing about rules")
	m = pipeline.Merge(gateway.Policy{Scopes: []string{}, Quotas: []gateway.Quota{}}, base)
	require.Empty(t, m.Scopes, "none are asked for")
	require.Empty(t, m.Quotas)
	m = pipeline.Merge(gateway.Policy{ExternalAuth: &gateway.ExternalAuth{URL: "http://b"}}, base)
	require.False(t, m.ExternalAuth.FailOpen)
	m = pipeline.Merge(gateway.Policy{Timeouts: gateway.Timeouts{Total: "9s"}, Headers: gateway.Headers{Set: map[string]string{"A": "3"}}}, base)
	require.Equal(t, gateway.Timeouts{Connect: "1s", Total: "9s"}, m.Timeouts)
	require.Equal(t, map[string]string{"A": "3"}, m.Headers.Set)
	require.True(t, m.KeepAuthorization)
}
