package mp1

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/mepserver/registry"
)

func TestParseQuery(t *testing.T) {
	yes, no := true, false
	for raw, want := range map[string]registry.Query{
		"":                                {},
		"&&":                              {},
		"ser_name=a":                      {Names: []string{"a"}},
		"ser_name=a&ser_name=b":           {Names: []string{"a", "b"}},
		"ser_name=a,b":                    {Names: []string{"a", "b"}},
		"ser_name=a%2Cb":                  {Names: []string{"a,b"}},
		"ser_name=a+b%20c":                {Names: []string{"a b c"}},
		"ser_instance_id=x&is_local=true": {InstanceIDs: []string{"x"}, IsLocal: &yes},
		"ser_category_id=c&consumed_local_only=false&scope_of_locality=ZONE": {CategoryID: "c", ConsumedLocalOnly: &no, Scope: mp1.LocalityZone},
	} {
		q, err := parseQuery(raw)
		require.NoError(t, err, raw)
		require.Equal(t, want, q, raw)
	}
	for raw, reason := range map[string]string{
		"instance_id=x":                        "instance_id is not a parameter",
		"SER_NAME=x":                           "SER_NAME is not a parameter",
		"ser_name=":                            "ser_name must have a well-formed value",
		"ser_name":                             "ser_name must have a well-formed value",
		"ser_name=%zz":                         "ser_name must have a well-formed value",
		"%zz=1":                                "… is not a well-formed parameter name",
		"is_local=TRUE":                        "is_local must be true or false",
		"is_local=1&consumed_local_only=maybe": "is_local must be true or false; consumed_local_only must be true or false",
		"scope_of_locality=HERE":               "scope_of_locality must be one of MEC_SYSTEM",
		"ser_name=a&ser_instance_id=b":         "at most one of",
		"ser_name=a&ser_category_id=b":         "at most one of",
		"ser_category_id=a&ser_category_id=b":  "ser_category_id must be given once",
	} {
		_, err := parseQuery(raw)
		require.ErrorIs(t, err, errs.Invalid, raw)
		require.ErrorContains(t, err, reason, raw)
	}
}

// FuzzParseQuery checks that no query makes the parser panic, and that every query it accepts obeys the rules.
func FuzzParseQuery(f *testing.F) {
	for _, s := range []string{"", "ser_name=a,b", "is_local=true&x=y", "ser_name=%2", "a=b=c&&&", "ser_category_id=%00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		q, err := parseQuery(raw)
		if err != nil {
			require.ErrorIs(t, err, errs.Invalid)
			return
		}
		require.LessOrEqual(t, len(q.Names), maxQueryValues)
		require.False(t, len(q.Names) > 0 && len(q.InstanceIDs) > 0)
		require.True(t, q.Scope == "" || q.Scope.Valid())
	})
}
