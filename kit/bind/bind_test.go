package bind_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/problem"
	"github.com/openmep/mep/kit/bind"
)

type inner struct {
	Name string `json:"name"`
	Port int    `json:"port"`
}

type target struct {
	Text    string                     `json:"text" alias:"Text2"`
	Flag    *bool                      `json:"flag"`
	Count   *int                       `json:"count"`
	Small   uint8                      `json:"small"`
	Ratio   float64                    `json:"ratio"`
	List    []string                   `json:"list"`
	Inner   *inner                     `json:"inner"`
	Inners  []inner                    `json:"inners"`
	Opaque  json.RawMessage            `json:"opaque"`
	Hidden  string                     `json:"-"`
	Further map[string]json.RawMessage `json:"-" bind:"rest"`
}

func TestReadsWhatItKnows(t *testing.T) {
	var v target
	var faults problem.InvalidParams
	require.NoError(t, bind.JSON([]byte(`{"text":"ü","flag":false,"count":6e1,"small":255,"ratio":0.5,"list":["a","b"],
		"inner":{"name":"n","port":80,"more":[{}]},"inners":[{"name":"x"}],"opaque":{ "a" : [1, 2] },"z":1,"Hidden":"x"}`), &v, &faults))
	require.Empty(t, faults)
	require.Equal(t, "ü", v.Text)
	require.False(t, *v.Flag)
	require.Equal(t, 60, *v.Count)
	require.Equal(t, uint8(255), v.Small)
	require.Equal(t, []string{"a", "b"}, v.List)
	require.Equal(t, inner{"n", 80}, *v.Inner)
	require.Len(t, v.Opaque, len(`{"a":[1,2]}`), "white space is taken out")
	require.JSONEq(t, `{"a":[1,2]}`, string(v.Opaque))
	require.Empty(t, v.Hidden)
	require.Equal(t, "1", string(v.Further["z"]))
}

func TestTakesAliasesAndNullForAbsent(t *testing.T) {
	var v target
	var faults problem.InvalidParams
	require.NoError(t, bind.JSON([]byte(`{"Text2":"x","flag":null,"list":null,"inner":null,"opaque":null}`), &v, &faults))
	require.Empty(t, faults)
	require.Equal(t, target{Text: "x"}, v)
}

func TestReportsEveryWrongType(t *testing.T) {
	var v target
	var faults problem.InvalidParams
	require.NoError(t, bind.JSON([]byte(`{"text":5,"flag":"yes","count":1.5,"small":256,"list":["a",1,null,"b"],
		"inner":{"name":[],"port":"80"},"inners":{"a":1},"ratio":1e999}`), &v, &faults))
	got := make(map[string]string)
	for _, f := range faults {
		got[f.Name] = f.Reason
	}
	require.Equal(t, map[string]string{
		"text":       "must be a string, not a number",
		"flag":       "must be true or false, not a string",
		"count":      "must be a whole number of 64 bits, not 1.5",
		"small":      "must be a whole number from 0 to 2^8-1, not 256",
		"list[1]":    "must be a string, not a number",
		"list[2]":    "must be a value, not null",
		"inner.name": "must be a string, not an array",
		"inner.port": "must be a number, not a string",
		"inners":     "must be an array, not an object",
		"ratio":      "is outside the range of numbers",
	}, got)
	require.Nil(t, v.Count, "a refused value is not kept")
}

func TestRefusesWhatIsNotAcceptableJSON(t *testing.T) {
	deep := strings.Repeat(`{"opaque":`, 40) + "1" + strings.Repeat("}", 40)
	for name, c := range map[string]struct{ body, reason string }{
		"nothing":               {"", "the body is empty"},
		"white space":           {" \n", "the body is empty"},
		"an array":              {"[]", "an object is needed, found an array"},
		"a string":              {`"x"`, "an object is needed, found a string"},
		"no JSON":               {"hello", "invalid character"},
		"cut short":             {`{"text":"x"`, "ends too early"},
		"cut within a string":   {`{"text":"x`, "ends too early"},
		"a duplicate member":    {`{"text":"x","text":"y"}`, `the member "text" occurs twice`},
		"an unknown duplicate":  {`{"a":1,"a":2}`, `the member "a" occurs twice`},
		"a nested duplicate":    {`{"opaque":{"a":1,"a":2}}`, `the member "a" occurs twice`},
		"invalid UTF-8":         {"{\"text\":\"\xff\"}", "invalid UTF-8"},
		"a lone surrogate":      {`{"text":"\ud800"}`, "surrogate"},
		"something behind":      {`{} {}`, "something follows"},
		"too deep, kept":        {deep, "nested deeper than 32"},
		"too deep, skipped":     {`{"inner":{"unknown":` + strings.Repeat("[", 50) + strings.Repeat("]", 50) + `}}`, "nested deeper than 32"},
		"a huge array":          {`{"list":[` + strings.Repeat(`"a",`, 100_000) + `"a"]}`, "more than 1000 elements"},
		"a comma at the end":    {`{"text":"x",}`, "invalid character"},
		"a number out of shape": {`{"small":01}`, "invalid character"},
	} {
		t.Run(name, func(t *testing.T) {
			var v target
			var faults problem.InvalidParams
			err := bind.JSON([]byte(c.body), &v, &faults)
			var syn *bind.SyntaxError
			require.ErrorAs(t, err, &syn)
			require.Contains(t, syn.Error(), c.reason)
		})
	}
}

func TestWholeNumbersAreExact(t *testing.T) {
	for text, want := range map[string]int{
		"0": 0, "-0": 0, "60": 60, "6e1": 60, "60.0": 60, "0.6E+2": 60, "600e-1": 60, "-1.5e1": -15, "0e999999999999": 0, "0.000": 0,
		"9007199254740993.0": 9007199254740993, "00.5e1": -1,
	} {
		var v target
		var faults problem.InvalidParams
		err := bind.JSON([]byte(`{"count":`+text+`}`), &v, &faults)
		if want == -1 {
			require.Error(t, err, text)
			continue
		}
		require.NoError(t, err, text)
		require.Empty(t, faults, text)
		require.Equal(t, want, *v.Count, text)
	}
	for _, text := range []string{
		"0.5", "1e-1", "1e-400", "1.0000000000000000000000000001", "0." + strings.Repeat("0", 400) + "1", "1e99", "1e999999999999",
		"1e-999999999999", "9223372036854775808", "-1e19",
	} {
		var v target
		var faults problem.InvalidParams
		require.NoError(t, bind.JSON([]byte(`{"count":`+text+`}`), &v, &faults), text)
		require.Len(t, faults, 1, text)
	}
}

func TestStopsAfterManyFaults(t *testing.T) {
	var v target
	var faults problem.InvalidParams
	require.NoError(t, bind.JSON([]byte(`{"list":[`+strings.Repeat("1,", 500)+`1]}`), &v, &faults))
	require.Len(t, faults, bind.MaxFaults)
}

// FuzzJSON checks that decoding never panics, and agrees with encoding/json on what it accepts without faults.
func FuzzJSON(f *testing.F) {
	for _, s := range []string{
		`{"text":"x","count":1,"list":["a"],"inner":{"name":"n"},"opaque":[1]}`, `{"flag":null}`, `{"list":[null]}`, `{"small":-1}`,
		`{"a":{"b":[{}]}}`, "{\"text\":\"\xff\"}", `[]`, `{`, `{"inners":[{"port":1},{"port":2}]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var v, w target
		var faults problem.InvalidParams
		if bind.JSON(data, &v, &faults) != nil || len(faults) > 0 {
			return
		}
		if !json.Valid(data) {
			t.Fatalf("accepted what is not JSON: %q", data)
		}
		if err := json.Unmarshal(data, &w); err == nil && v.Text != "" && w.Text != v.Text && !strings.Contains(string(data), "ext2") {
			t.Fatalf("text is %q, encoding/json reads %q", v.Text, w.Text)
		}
	})
}
