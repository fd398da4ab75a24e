package settings_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/openmep/mep/kit/settings"
)

// rich is a configuration with structured settings of many types.
type rich struct {
	Routes []route         `name:"routes" usage:"structured"`
	Text   string          `name:"text" default:"none" usage:"text"`
	Max    int             `name:"max" default:"1" usage:"number"`
	On     bool            `name:"on" default:"false" usage:"yes or no"`
	Wait   time.Duration   `name:"wait" default:"1s" usage:"time"`
	Names  []string        `name:"names" usage:"list"`
	Raw    json.RawMessage `name:"raw" usage:"anything"`
}

type route struct {
	ID      string                     `json:"id"`
	Port    int                        `json:"port"`
	Weight  float64                    `json:"weight"`
	On      *bool                      `json:"on"`
	Paths   []string                   `json:"paths"`
	Headers map[string]string          `json:"headers"`
	Policy  *policy                    `json:"policy"`
	Unknown map[string]json.RawMessage `json:"-" bind:"rest"`
}

type policy struct {
	Limits []int  `json:"limits"`
	Proxy  string `json:"proxy"`
}

func read(t *testing.T, file string, env map[string]string) (*rich, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.yaml")
	require.NoError(t, os.WriteFile(path, []byte(file), 0o600))
	cfg := new(rich)
	return cfg, settings.Load(cfg, settings.Sources{File: path, Env: func(k string) (string, bool) {
		v, ok := env[k]
		return v, ok
	}}, nil)
}

func TestVariablesStandForTheirValues(t *testing.T) {
	env := map[string]string{
		"A": "one", "EMPTY": "", "N": "7", "YES": "true", "D": "3s", "LIST": "x, y", "_a1": "low",
		"EVIL": "x\nmax: 99", "NESTED": "${A}", "FLOW": "[1, 2]", "HASH": "v # no comment",
	}
	for file, want := range map[string]rich{
		"text: ${A}":                               {Text: "one", Max: 1, Wait: time.Second},
		"text: a${A}b${_a1}c":                      {Text: "aoneblowc", Max: 1, Wait: time.Second},
		"text: '${A}'":                             {Text: "one", Max: 1, Wait: time.Second},
		"text: |\n  ${A}\n  two":                   {Text: "one\ntwo", Max: 1, Wait: time.Second},
		"text: ${EMPTY}":                           {Max: 1, Wait: time.Second},
		"text: ${GONE:-}":                          {Max: 1, Wait: time.Second},
		"text: ${GONE:-a:-b}":                      {Text: "a:-b", Max: 1, Wait: time.Second},
		"text: ${EMPTY:-other}":                    {Text: "other", Max: 1, Wait: time.Second},
		"text: ${A:-other}":                        {Text: "one", Max: 1, Wait: time.Second},
		"text: $${A}":                              {Text: "${A}", Max: 1, Wait: time.Second},
		"text: $${${A}$$ $A {A} $":                 {Text: "${one$$ $A {A} $", Max: 1, Wait: time.Second},
		"text: ${EVIL}":                            {Text: "x\nmax: 99", Max: 1, Wait: time.Second},
		"text: ${NESTED}":                          {Text: "${A}", Max: 1, Wait: time.Second},
		"text: ${FLOW}":                            {Text: "[1, 2]", Max: 1, Wait: time.Second},
		"text: ${HASH}":                            {Text: "v # no comment", Max: 1, Wait: time.Second},
		"text: ${N} # ${GONE}":                     {Text: "7", Max: 1, Wait: time.Second},
		"max: ${N}\nwait: ${D}\non: ${YES}":        {Text: "none", Max: 7, Wait: 3 * time.Second, On: true},
		"max: 1${N}":                               {Text: "none", Max: 17, Wait: time.Second},
		"names: ${LIST}":                           {Text: "none", Max: 1, Wait: time.Second, Names: []string{"x", "y"}},
		"names:\n- ${A}\n- ${LIST}\n- plain":       {Text: "none", Max: 1, Wait: time.Second, Names: []string{"one", "x, y", "plain"}},
		"text: &a ${A}\nnames: [b]":                {Text: "one", Max: 1, Wait: time.Second, Names: []string{"b"}},
		"routes:\n- id: ${N}\n  port: ${N}":        {Text: "none", Max: 1, Wait: time.Second, Routes: []route{{ID: "7", Port: 7}}},
		"routes: [{id: \"${N}\", port: \"${N}\"}]": {Text: "none", Max: 1, Wait: time.Second, Routes: []route{{ID: "7", Port: 7}}},
		"routes:\n- weight: ${N}.5":                {Text: "none", Max: 1, Wait: time.Second, Routes: []route{{Weight: 7.5}}},
		"routes:\n- weight: ${N}":                  {Text: "none", Max: 1, Wait: time.Second, Routes: []route{{Weight: 7}}},
		"routes:\n- on: ${YES}":                    {Text: "none", Max: 1, Wait: time.Second, Routes: []route{{On: new(true)}}},
		"routes:\n- paths:\n  - /${A}\n  - ${N}":   {Text: "none", Max: 1, Wait: time.Second, Routes: []route{{Paths: []string{"/one", "7"}}}},
		"routes:\n- headers:\n    ${A}: ${N}":      {Text: "none", Max: 1, Wait: time.Second, Routes: []route{{Headers: map[string]string{"${A}": "7"}}}},
		"routes:\n- policy:\n    limits:\n    - 2${N}\n    proxy: ${YES}": {
			Text: "none", Max: 1, Wait: time.Second, Routes: []route{{Policy: &policy{Limits: []int{27}, Proxy: "true"}}},
		},
		"routes:\n- id: &n ${N}\n  port: *n": {Text: "none", Max: 1, Wait: time.Second, Routes: []route{{ID: "7", Port: 7}}},
		"raw:\n  a: ${N}\n  b: !!int ${N}":   {Text: "none", Max: 1, Wait: time.Second, Raw: json.RawMessage(`{"a":"7","b":7}`)},
	} {
		t.Run(file, func(t *testing.T) {
			cfg, err := read(t, file, env)
			require.NoError(t, err)
			require.Equal(t, want, *cfg)
		})
	}
}

func TestFaultsOfVariablesSayWhereAndWhich(t *testing.T) {
	env := map[string]string{"WORD": "word", "NULL": "null", "EMPTY": "", "BIG": "99999999999999999999", "OCTAL": "010", "BYTES": "\xff"}
	for name, x := range map[string]struct{ file, want string }{
		"not set":            {"on: true\ntext: ${GONE}", "c.yaml:2: text: the environment variable GONE is not set; ${GONE:-…} gives it a default"},
		"deep":               {"routes:\n- id: a\n  paths:\n  - b\n  - c${GONE}", "c.yaml:5: routes: the environment variable GONE is not set"},
		"no end":             {"text: ${GONE", `c.yaml:1: text: "${" has no "}"`},
		"no name":            {"text: ${}", `"" is not the name of an environment variable`},
		"digit first":        {"text: ${1A}", `"1A" is not the name of an environment variable`},
		"other operator":     {"text: ${WORD-x}", `"WORD-x" is not the name of an environment variable`},
		"checked: number":    {"max: ${WORD}", `c.yaml:1: max: "word" is not a whole number`},
		"checked: empty":     {"max: ${EMPTY}", `max: "" is not a whole number`},
		"checked: duration":  {"wait: ${WORD}", `wait: "word" is not a duration`},
		"checked: structure": {"routes: ${WORD}", "routes: value must be an array, not a string"},
		"number in a list":   {"routes:\n- port: ${WORD}", "value[0].port must be a number, not a string"},
		"null is no absence": {"routes:\n- port: ${NULL}", "value[0].port must be a number, not a string"},
		"null is no truth":   {"routes:\n- on: ${NULL}", "value[0].on must be true or false, not a string"},
		"too large":          {"routes:\n- port: ${BIG}", "value[0].port must be a number, not a string"},
		"another notation":   {"routes:\n- port: ${OCTAL}", "value[0].port must be a number, not a string"},
		"no UTF-8":           {"text: ${BYTES}", "the environment variable BYTES does not hold UTF-8"},
		"no environment":     {"text: ${HOME}", "the environment variable HOME is not set"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := read(t, x.file, env)
			require.ErrorContains(t, err, x.want)
		})
	}
}

// FuzzVariables checks that the value of a variable changes nothing but the value it is part of.
func FuzzVariables(f *testing.F) {
	for _, s := range []string{"", "x", "a: b", "\n- c", "${A}", "$${", "}", "'", "\"", "null", "7", "*x", "!!int 1", "\x00", "|\n a"} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, value, text string) {
		env := map[string]string{"V": value}
		cfg, err := read(t, "text: ${V}\nroutes:\n- id: ${V}\n  headers:\n    h: a${V}b\nmax: 5\n", env)
		require.Equal(t, utf8.ValidString(value), err == nil, "%v", err)
		if err == nil {
			require.Equal(t, 5, cfg.Max)
			require.Equal(t, value, cfg.Text)
			require.Len(t, cfg.Routes, 1)
			require.Equal(t, value, cfg.Routes[0].ID)
			require.Equal(t, map[string]string{"h": "a" + value + "b"}, cfg.Routes[0].Headers)
		}
		// Any text in a file is read or refused; one without variables is unchanged.
		quoted, err := yaml.Marshal(map[string]string{"text": text})
		if err != nil {
			return
		}
		if cfg, err = read(t, string(quoted), env); err == nil && utf8.ValidString(text) && !strings.Contains(text, "${") {
			require.Equal(t, text, cfg.Text)
		}
	})
}
