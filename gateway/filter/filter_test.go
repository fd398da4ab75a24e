package filter_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/problem"
	"github.com/openmep/mep/gateway/filter"
)

type config struct {
	Word    string                     `json:"word"`
	Times   int                        `json:"times"`
	Unknown map[string]json.RawMessage `json:"-" bind:"rest"`
}

// Check implements filter.Checker.
func (c *config) Check(faults *problem.InvalidParams) {
	if c.Word == "bad" {
		faults.Add("word", "must not be bad")
	}
	for name := range c.Unknown {
		faults.Add(name, "is not a member here")
	}
}

func TestConfigurationsAreTyped(t *testing.T) {
	t.Parallel()
	var got *config
	d := filter.Define("say", func(cfg config, _ filter.Env) (filter.Filter, error) {
		if cfg.Word == "refuse" {
			return nil, errors.New("I will not say that")
		}
		got = &cfg
		return func(next http.Handler) http.Handler { return next }, nil
	})
	require.Equal(t, "say", d.Name)
	for name, c := range map[string]struct {
		config, fault string
		want          config
	}{
		"nothing":            {"", "", config{}},
		"an empty object":    {"{}", "", config{}},
		"members":            {`{"word":"a","times":2}`, "", config{Word: "a", Times: 2}},
		"another type":       {`{"times":"2"}`, "times", config{}},
		"no object":          {`[1]`, "filter say: ", config{}},
		"no JSON":            {`{`, "filter say: ", config{}},
		"what it refuses":    {`{"word":"bad"}`, "must not be bad", config{}},
		"a misspelt member":  {`{"wrd":"a"}`, "wrd", config{}},
		"what it will not":   {`{"word":"refuse"}`, "I will not say that", config{}},
		"null for an object": {`null`, "filter say: ", config{}},
	} {
		t.Run(name, func(t *testing.T) {
			got = nil
			f, err := d.Make(json.RawMessage(c.config), filter.Env{})
			if c.fault != "" {
				require.ErrorContains(t, err, c.fault)
				require.ErrorContains(t, err, "filter say: ")
				require.Nil(t, got, "it is not made of a configuration that is wrong")
				return
			}
			require.NoError(t, err)
			require.NotNil(t, f)
			require.Equal(t, c.want.Word, got.Word)
			require.Equal(t, c.want.Times, got.Times)
		})
	}
}

func TestCallsThatCameThroughNoGateway(t *testing.T) {
	t.Parallel()
	require.Nil(t, filter.CallOf(t.Context()))
	c := &filter.Call{Consumer: "x"}
	require.Same(t, c, filter.CallOf(context.WithValue(t.Context(), filter.Key, c)))
}
