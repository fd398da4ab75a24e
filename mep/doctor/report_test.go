package doctor

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestReports(t *testing.T) {
	f := &findings{check: "etcd"}
	f.ok("a", "is well")
	f.note("b", "is known")
	f.warn("c", "is\nodd \x1b[31m", "mend it")
	f.fail("d", "is <broken>", "replace it")
	require.Equal(t, Fail, f.worst())
	report := Report(f.list)
	require.Equal(t, 1, report.Faults())

	var text strings.Builder
	require.NoError(t, report.WriteText(&text))
	require.Equal(t, "ok    etcd            a is well\n"+
		"note  etcd            b is known\n"+
		"warn  etcd            c is odd  [31m: mend it\n"+
		"FAIL  etcd            d is <broken>: replace it\n", text.String())

	var object strings.Builder
	require.NoError(t, report.WriteJSON(&object))
	require.Contains(t, object.String(), "<broken>")
	var back []map[string]string
	require.NoError(t, json.Unmarshal([]byte(object.String()), &back))
	require.Equal(t, map[string]string{"check": "etcd", "level": "ok", "subject": "a", "finding": "is well", "remedy": ""}, back[0])
	require.Equal(t, map[string]string{"check": "etcd", "level": "fail", "subject": "d", "finding": "is <broken>", "remedy": "replace it"}, back[3])

	object.Reset()
	require.NoError(t, Report(nil).WriteJSON(&object))
	require.Equal(t, "[]\n", object.String())
}
