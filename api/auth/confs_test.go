package auth_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/auth"
	"github.com/openmep/mep/api/problem"
)

const (
	accessKey = "QVUJMSUMgS0VZLS0tLS0"
	secretKey = "DXPb4sqElKhcHe07Kw5uorayETwId1JOjjOIRomRs5wyszoCR5R7AtVa28KT3lSc"
)

// checked is a request body.
type checked interface {
	Check(*problem.InvalidParams)
}

// faults decodes and checks a body, and returns the names of its faulty members.
func faults(t *testing.T, body string, into checked) []string {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(body), into))
	var p problem.InvalidParams
	into.Check(&p)
	names := make([]string, len(p))
	for i, f := range p {
		require.NotEmpty(t, f.Reason)
		names[i] = f.Name
	}
	return names
}

func TestCheckOfCredentials(t *testing.T) {
	name128, name129 := strings.Repeat("n", 128), strings.Repeat("n", 129)
	most := `"a"` + strings.Repeat(`,"a"`, 255)
	for name, x := range map[string]struct {
		body   string
		faults []string
	}{
		"complete": {`{"authInfo":{"credentials":{"accessKeyId":"` + accessKey + `","secretKey":"` + secretKey + `"},
			"refreshTokens":true,"bindClientAddress":true},"appInfo":{"appName":"a","requiredServices":["rnis"]}}`, nil},
		"empty":             {`{}`, nil},
		"nulls":             {`{"authInfo":{"credentials":{"accessKeyId":null,"secretKey":null}},"appInfo":{"appName":null,"requiredServices":null}}`, nil},
		"null objects":      {`{"authInfo":null,"appInfo":null}`, nil},
		"only the access":   {`{"authInfo":{"credentials":{"accessKeyId":"` + accessKey + `"}}}`, nil},
		"only the secret":   {`{"authInfo":{"credentials":{"secretKey":"` + secretKey + `"}}}`, nil},
		"further member":    {`{"authInfo":{"credentials":{"appName":"x"}}}`, nil},
		"longest texts":     {`{"appInfo":{"appName":"` + name128 + `","requiredServices":["` + name128 + `"]}}`, nil},
		"most services":     {`{"appInfo":{"requiredServices":[` + most + `]}}`, nil},
		"too many services": {`{"appInfo":{"requiredServices":[` + most + `,"a"]}}`, []string{"appInfo.requiredServices"}},
		"bad keys": {
			`{"authInfo":{"credentials":{"accessKeyId":"short","secretKey":"short"}}}`,
			[]string{"authInfo.credentials.accessKeyId", "authInfo.credentials.secretKey"},
		},
		"name too long":   {`{"appInfo":{"appName":"` + name129 + `"}}`, []string{"appInfo.appName"}},
		"bytes, not runs": {`{"appInfo":{"appName":"` + strings.Repeat("é", 65) + `"}}`, []string{"appInfo.appName"}},
		"line in name":    {`{"appInfo":{"appName":"a\nb"}}`, []string{"appInfo.appName"}},
		"bad services": {
			`{"appInfo":{"requiredServices":["a","",null,"` + name129 + `","a\u0000"]}}`,
			[]string{
				"appInfo.requiredServices[1]", "appInfo.requiredServices[2]", "appInfo.requiredServices[3]",
				"appInfo.requiredServices[4]",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			require.ElementsMatch(t, x.faults, faults(t, x.body, &auth.Confs{}))
		})
	}
}

func TestARefusedKeyIsNotRepeated(t *testing.T) {
	c := auth.Confs{AuthInfo: auth.AuthInfo{Credentials: auth.KeyPair{SecretKey: "hunter2"}}}
	var p problem.InvalidParams
	c.Check(&p)
	require.NotContains(t, p.Error(), "hunter2")
}

func TestAMemberOfAWrongTypeIsReportedOnce(t *testing.T) {
	p := problem.InvalidParams{{Name: "appInfo.requiredServices[0]", Reason: "must be a string, not a number"}}
	(&auth.Confs{AppInfo: auth.AppInfo{RequiredServices: []string{""}}}).Check(&p)
	require.Len(t, p, 1)

	p = problem.InvalidParams{{Name: "enabled", Reason: "must be true or false, not a number"}}
	(&auth.ConfsPatch{}).Check(&p)
	require.Len(t, p, 1)
}

func TestCheckOfAPatch(t *testing.T) {
	for body, want := range map[string][]string{
		`{"enabled":false}`: nil, `{"refreshTokens":true}`: nil, `{"bindClientAddress":false}`: nil,
		`{"enabled":true,"refreshTokens":true,"bindClientAddress":true}`: nil,
		`{}`: {"enabled"}, `{"enabled":null}`: {"enabled"}, `{"other":true}`: {"enabled"},
	} {
		require.ElementsMatch(t, want, faults(t, body, &auth.ConfsPatch{}), body)
	}
}

func TestCheckOfARotation(t *testing.T) {
	for body, want := range map[string][]string{
		`{}`: nil, `{"secretKey":null,"overlapSeconds":null}`: nil, `{"overlapSeconds":0}`: nil, `{"overlapSeconds":2592000}`: nil,
		`{"secretKey":"` + secretKey + `","overlapSeconds":60}`: nil,
		`{"overlapSeconds":-1}`:                                 {"overlapSeconds"},
		`{"overlapSeconds":2592001}`:                            {"overlapSeconds"},
		`{"secretKey":"` + accessKey + `"}`:                     {"secretKey"},
		`{"secretKey":" ` + secretKey[1:] + `"}`:                {"secretKey"},
	} {
		require.ElementsMatch(t, want, faults(t, body, &auth.Rotation{}), body)
	}
}

func TestTheManagementTypesHaveTheirNames(t *testing.T) {
	at := time.Date(2026, 7, 25, 10, 0, 0, 0, time.UTC)
	later := at.Add(time.Hour)
	requireJSON(t, `{"authInfo":{"credentials":{}},"appInfo":{"appName":""}}`, auth.Confs{})
	requireJSON(t, `{"authInfo":{"credentials":{"accessKeyId":"a","secretKey":"s"},"refreshTokens":true,"bindClientAddress":true},
		"appInfo":{"appName":"n","requiredServices":[]}}`, auth.Confs{
		AuthInfo: auth.AuthInfo{Credentials: auth.KeyPair{AccessKeyID: "a", SecretKey: "s"}, RefreshTokens: true, BindClientAddress: true},
		AppInfo:  auth.AppInfo{AppName: "n", RequiredServices: []string{}},
	})
	record := auth.ConfsRecord{
		AppInstanceID: "i", AccessKeyID: "a", AppName: "n", RequiredServices: auth.ServiceNames{"x", `y"z`}, Enabled: true,
		Created: at, Changed: later, Secrets: []auth.SecretInfo{{ID: "1", Created: at, Expires: &later}, {ID: "2", Created: later}},
	}
	text := `{"app_ins_id":"i","ak":"a","app_name":"n","required_services":"[\"x\",\"y\\\"z\"]","enabled":true,"refreshTokens":false,
		"bindClientAddress":false,"created":"2026-07-25T10:00:00Z","changed":"2026-07-25T11:00:00Z","secrets":[
		{"id":"1","created":"2026-07-25T10:00:00Z","expires":"2026-07-25T11:00:00Z"},{"id":"2","created":"2026-07-25T11:00:00Z"}]}`
	requireJSON(t, text, record)
	var read auth.ConfsRecord
	require.NoError(t, json.Unmarshal([]byte(text), &read))
	require.Equal(t, record, read)
	requireJSON(t, `{"accessKeyId":"a","previousExpires":"2026-07-25T10:00:00Z"}`,
		auth.RotationResult{AccessKeyID: "a", PreviousExpires: at})
	requireJSON(t, `{"accessKeyId":"a","secretKey":"s","previousExpires":"2026-07-25T10:00:00Z"}`,
		auth.RotationResult{AccessKeyID: "a", SecretKey: "s", PreviousExpires: at})
	requireJSON(t, `{}`, auth.Rotation{})
	requireJSON(t, `{}`, auth.ConfsPatch{})
}

func TestServiceNamesAreAnArrayInAString(t *testing.T) {
	requireJSON(t, `"[]"`, auth.ServiceNames(nil))
	requireJSON(t, `"[]"`, auth.ServiceNames{})
	requireJSON(t, `"[\"a\"]"`, auth.ServiceNames{"a"})
	for text, want := range map[string]auth.ServiceNames{`"[]"`: {}, `""`: nil, `"[\"a\",\"b\"]"`: {"a", "b"}, `"null"`: nil} {
		got := auth.ServiceNames{"before"}
		require.NoError(t, json.Unmarshal([]byte(text), &got), text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{`"a"`, `"[1]"`, `"{}"`, `["a"]`} {
		var got auth.ServiceNames
		require.Error(t, json.Unmarshal([]byte(text), &got), text)
	}
}

func FuzzServiceNames(f *testing.F) {
	f.Add([]byte(`["a","b"]`))
	f.Add([]byte(`[null]`))
	f.Add([]byte(` `))
	f.Fuzz(func(t *testing.T, text []byte) {
		var names, again auth.ServiceNames
		if names.UnmarshalText(text) != nil {
			return
		}
		written, err := names.MarshalText()
		require.NoError(t, err)
		require.NoError(t, again.UnmarshalText(written))
		require.ElementsMatch(t, names, again)
	})
}
