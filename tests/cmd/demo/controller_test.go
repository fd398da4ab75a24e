package main

import (
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTheControllerBelievesOnlyThePlatform(t *testing.T) {
	c := &controller{secret: "a secret of two"}
	const body = `{"kind": "TRAFFIC"}`
	now := strconv.FormatInt(time.Now().Unix(), 10)
	old := strconv.FormatInt(time.Now().Add(-time.Minute).Unix(), 10)
	for _, tc := range []struct{ name, at, signature, fault string }{
		{"as it should be", now, c.signature(now, []byte(body)), ""},
		{"without a signature", now, "", "the signature of a call to the controller is wrong"},
		{"another body", now, c.signature(now, []byte("{}")), "the signature of a call to the controller is wrong"},
		{"another time", now, c.signature(old, []byte(body)), "the signature of a call to the controller is wrong"},
		{"another secret", now, (&controller{secret: "a secret of one"}).signature(now, []byte(body)), "the signature of a call to the controller is wrong"},
		{"an old call", old, c.signature(old, []byte(body)), "a call to the controller was signed at"},
		{"no time", "now", c.signature("now", []byte(body)), "a call to the controller was signed at"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := c.verify(http.Header{"X-Mep-Timestamp": {tc.at}, "X-Mep-Signature": {tc.signature}}, []byte(body))
			if tc.fault == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tc.fault)
		})
	}
}
