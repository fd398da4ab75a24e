package settings_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/kit/settings"
)

type common struct {
	Dev bool `name:"dev" default:"false" usage:"soft mode"`
}

type config struct {
	Common common
	Listen string        `name:"mp1.listen" default:":8088" usage:"address"`
	Remove time.Duration `name:"liveness.removeAfter" default:"0s" reload:"true" usage:"time"`
	Max    int           `name:"limits.services" default:"1000" reload:"true" usage:"number"`
	Ends   []string      `name:"etcd.endpoints" usage:"list"`
	Loop   bool          `name:"callbacks.allowLoopback" default:"false" dev:"true" usage:"yes or no"`
	Things []thing       `name:"things" usage:"structured"`
}

type thing struct {
	ID   string `json:"id"`
	Port int    `json:"port"`
}

func load(t *testing.T, file string, env, flags map[string]string) (*config, error) {
	t.Helper()
	src := settings.Sources{Flags: flags, Env: func(k string) (string, bool) { v, ok := env[k]; return v, ok }}
	if file != "" {
		src.File = filepath.Join(t.TempDir(), "c.yaml")
		require.NoError(t, os.WriteFile(src.File, []byte(file), 0o600))
	}
	cfg := new(config)
	return cfg, settings.Load(cfg, src, func() bool { return cfg.Common.Dev })
}

func TestLaterSourcesOverrideEarlierOnes(t *testing.T) {
	file := "limits: {services: 1}\nmp1: {listen: ':1'}\netcd: {endpoints: [a, b]}\n"
	cfg, err := load(t, file, map[string]string{"MEP_LIMITS_SERVICES": "2", "MEP_MP1_LISTEN": ":2"}, map[string]string{"mp1-listen": ":3"})
	require.NoError(t, err)
	require.Equal(t, ":3", cfg.Listen)
	require.Equal(t, 2, cfg.Max)
	require.Equal(t, []string{"a", "b"}, cfg.Ends)
	require.Equal(t, time.Duration(0), cfg.Remove)
}

func TestEverySpellingOfANameIsTheSameSetting(t *testing.T) {
	for _, file := range []string{
		"liveness: {removeAfter: 5s}", "liveness.removeAfter: 5s", "liveness-remove-after: 5s", "livenessRemoveAfter: 5s",
		"liveness: {remove-after: 5s}",
	} {
		cfg, err := load(t, file, nil, nil)
		require.NoError(t, err, file)
		require.Equal(t, 5*time.Second, cfg.Remove, file)
	}
}

func TestDevelopmentDefaultsApplyToWhatNobodySet(t *testing.T) {
	cfg, err := load(t, "", nil, map[string]string{"dev": "true"})
	require.NoError(t, err)
	require.True(t, cfg.Loop)
	cfg, err = load(t, "callbacks: {allowLoopback: false}", nil, map[string]string{"dev": "true"})
	require.NoError(t, err)
	require.False(t, cfg.Loop, "what was set stays")
}

func TestStructuredSettingsAreReadLikeRequests(t *testing.T) {
	cfg, err := load(t, "things:\n- id: a\n  port: 1\n- {id: b}\n", nil, nil)
	require.NoError(t, err)
	require.Equal(t, []thing{{"a", 1}, {"b", 0}}, cfg.Things)
	_, err = load(t, "things:\n- id: a\n  port: x\n", nil, nil)
	require.ErrorContains(t, err, "value[0].port must be a number")
}

func TestFaultsSayWhereAndWhatToDo(t *testing.T) {
	for name, c := range map[string]struct {
		file       string
		env, flags map[string]string
		want       string
	}{
		"unknown name":        {file: "\nmp1:\n  lisen: x", want: `c.yaml:3: unknown setting "mp1.lisen"; did you mean "mp1.listen"?`},
		"unknown, no idea":    {file: "somethingElse: x", want: `c.yaml:1: unknown setting "somethingElse"`},
		"set twice":           {file: "mp1.listen: a\nmp1: {listen: b}", want: "c.yaml:2: mp1.listen is set twice"},
		"wrong type":          {file: "limits:\n  services: many", want: `c.yaml:2: limits.services: "many" is not a whole number`},
		"bad duration":        {file: "liveness: {removeAfter: 5}", want: `"5" is not a duration`},
		"negative duration":   {file: "liveness: {removeAfter: -5s}", want: `"-5s" is not a duration`},
		"list for a string":   {file: "mp1: {listen: [a]}", want: "mp1.listen: must be a plain value of type string"},
		"no value":            {file: "mp1: {listen: }", want: "has no value; leave the setting out to get its default"},
		"no mapping":          {file: "- a", want: "must hold settings"},
		"no YAML":             {file: "a: [", want: "c.yaml"},
		"environment":         {env: map[string]string{"MEP_DEV": "perhaps"}, want: `environment variable MEP_DEV: "perhaps" is not true or false`},
		"flag":                {flags: map[string]string{"limits-services": "x"}, want: `flag --limits-services: "x" is not a whole number`},
		"unknown member":      {file: "things:\n- id: a\n  prot: 1", want: `things: unknown field "prot"`},
		"structured as value": {file: "things: x", want: "value must be an array"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, c.file, c.env, c.flags)
			require.ErrorContains(t, err, c.want)
		})
	}
	_, err := settingsFromMissingFile()
	require.ErrorContains(t, err, "read the configuration")
}

func settingsFromMissingFile() (*config, error) {
	cfg := new(config)
	return cfg, settings.Load(cfg, settings.Sources{File: "/does/not/exist"}, nil)
}

func TestFlagsAndWhatWasGiven(t *testing.T) {
	fs := pflag.NewFlagSet("x", pflag.ContinueOnError)
	settings.Flags(fs, new(config))
	require.Nil(t, fs.Lookup("things"), "structured settings are no flags")
	require.NoError(t, fs.Parse([]string{"--dev", "--mp1-listen=:9"}))
	require.Equal(t, map[string]string{"dev": "true", "mp1-listen": ":9"}, settings.Given(fs))
}

func TestChangedAndCopy(t *testing.T) {
	was, err := load(t, "", nil, nil)
	require.NoError(t, err)
	is, err := load(t, "", nil, map[string]string{"limits-services": "5", "mp1-listen": ":9"})
	require.NoError(t, err)
	var names []string
	for _, s := range settings.Changed(was, is) {
		names = append(names, s.Path)
	}
	require.Equal(t, []string{"mp1.listen", "limits.services"}, names)
	settings.Copy(was, is)
	require.Equal(t, 5, was.Max, "can be reloaded")
	require.Equal(t, ":8088", was.Listen, "needs a restart")
}
