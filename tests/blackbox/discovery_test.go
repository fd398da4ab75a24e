package blackbox

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

func category(id string) object {
	return object{"href": "/catalogue", "id": id, "name": "name of " + id, "version": "1"}
}

func TestDiscovery(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	one, two := newApp(p.Client(t)), newApp(p.Client(t))
	ids := map[string]string{}
	for label, x := range map[string]struct {
		app  app
		info object
	}{
		"a1":    {one, own("a")},
		"a2":    {two, but(own("a"), "scopeOfLocality", "ZONE", "consumedLocalOnly", false, "serCategory", category("c1"))},
		"b":     {one, but(own("b"), "scopeOfLocality", "MEC_SYSTEM", "serCategory", category("c1"))},
		"off":   {one, but(own("off"), "state", "INACTIVE", "serCategory", category("c2"), "consumedLocalOnly", false)},
		"comma": {two, own("x,y")},
		"odd":   {two, but(own("ü &=+%/"), "serCategory", category("c,3"))},
		"gone":  {two, but(own("gone"), "livenessInterval", 1, "serCategory", category("c1"))},
	} {
		ids[label] = x.app.register(x.info).id
	}
	harness.Eventually(t, "the service without heartbeats is suspended", func() error {
		info := one.Get(services + "/" + ids["gone"]).Is(200).Object()
		return harness.Not(info["state"] == "SUSPENDED", "it is %s", info["state"])
	})
	label := func(list []object) []string {
		found := []string{}
		for _, info := range list {
			for l, id := range ids {
				if id == info["serInstanceId"] {
					found = append(found, l)
				}
			}
		}
		slices.Sort(found)
		return found
	}
	hundred := func(value string) string {
		return "ser_name=" + strings.Repeat("q,", 98) + "q," + value
	}
	const none = "-"
	for _, x := range []struct{ name, query, want, own string }{
		// want is what /services lists, own what app two lists of its own, both by their labels.
		{"nothing asked", "", "a1 a2 b comma odd off", "a2 comma gone odd"},
		{"nothing asked, with separators", "&&", "a1 a2 b comma odd off", "a2 comma gone odd"},

		{"a name", "ser_name=a", "a1 a2", "a2"},
		{"an unknown name", "ser_name=z", none, none},
		{"part of a name", "ser_name=o", none, none},
		{"a name in other letters", "ser_name=A", none, none},
		{"names, repeated", "ser_name=a&ser_name=b", "a1 a2 b", "a2"},
		{"names, with commas", "ser_name=a,b", "a1 a2 b", "a2"},
		{"names, both ways", "ser_name=a,b&ser_name=off,z", "a1 a2 b off", "a2"},
		{"a name twice", "ser_name=a&ser_name=a,a", "a1 a2", "a2"},
		{"a name with a comma", "ser_name=x%2Cy", "comma", "comma"},
		{"a name with other characters", "ser_name=" + url.QueryEscape("ü &=+%/"), "odd", "odd"},
		{"a semicolon belongs to the name", "ser_name=a;is_local=x", none, none},
		{"the name of a suspended service", "ser_name=gone", none, "gone"},
		{"a hundred names", hundred("b"), "b", none},

		{"an id", "ser_instance_id=" + ids["a2"], "a2", "a2"},
		{"an id of another app", "ser_instance_id=" + ids["a1"], "a1", none},
		{"ids, repeated", "ser_instance_id=" + ids["a2"] + "&ser_instance_id=" + ids["b"], "a2 b", "a2"},
		{"ids, with commas", "ser_instance_id=" + ids["a2"] + "," + ids["comma"], "a2 comma", "a2 comma"},
		{"an unknown id", "ser_instance_id=x", none, none},
		{"the id of a suspended service", "ser_instance_id=" + ids["gone"], none, "gone"},

		{"a category", "ser_category_id=c1", "a2 b", "a2 gone"},
		{"an unknown category", "ser_category_id=c9", none, none},
		{"a category with a comma", "ser_category_id=c%2C3", "odd", "odd"},
		{"the name of a category", "ser_category_id=name+of+c1", none, none},

		{"a scope", "scope_of_locality=ZONE", "a2", "a2"},
		{"the default scope", "scope_of_locality=MEC_HOST", "a1 comma odd off", "comma gone odd"},
		{"a scope nobody has", "scope_of_locality=NFVI_NODE", none, none},
		{"consumed locally only", "consumed_local_only=true", "a1 b comma odd", "comma gone odd"},
		{"not consumed locally only", "consumed_local_only=false", "a2 off", "a2"},
		{"local", "is_local=true", "a1 a2 b comma odd off", "a2 comma gone odd"},
		{"not local", "is_local=false", none, none},

		{"a name and a scope", "ser_name=a&scope_of_locality=ZONE", "a2", "a2"},
		{"a name and a scope that exclude each other", "ser_name=b&scope_of_locality=ZONE", none, none},
		{"a category and consumption", "ser_category_id=c1&consumed_local_only=true", "b", "gone"},
		{"everything that can be combined", "ser_name=a&scope_of_locality=ZONE&consumed_local_only=false&is_local=true", "a2", "a2"},
		{"an inactive service by its category", "ser_category_id=c2", "off", none},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			c := p.Client(t)
			for path, want := range map[string]string{services: x.want, "/mep" + services: x.want, two.services(): x.own} {
				query := path
				if x.query != "" {
					query += "?" + x.query
				}
				answer := c.Get(query, harness.Tolerated()).Is(200)
				expected := []string{}
				if want != none {
					expected = strings.Fields(want)
				}
				require.Equal(t, expected, label(answer.Array()), query)
				head := c.Head(query, harness.Tolerated()).Is(200)
				require.Empty(t, head.Body)
				require.Equal(t, strconv.Itoa(len(answer.Body)), head.Header.Get("Content-Length"))
			}
		})
	}
	t.Run("a suspended service stays visible by id and to its own app", func(t *testing.T) {
		t.Parallel()
		c := p.Client(t)
		for _, path := range []string{services + "/" + ids["gone"], two.service(ids["gone"])} {
			require.Equal(t, "SUSPENDED", c.Get(path).Is(200).Object()["state"])
		}
	})
	t.Run("an inactive service is listed as such", func(t *testing.T) {
		t.Parallel()
		require.Equal(t, "INACTIVE", p.Client(t).Get(services + "?ser_name=off").Array()[0]["state"])
	})
	t.Run("every service of the list is as it is alone", func(t *testing.T) {
		t.Parallel()
		c := p.Client(t)
		for _, info := range c.Get(services).Array() {
			same(t, c.Get(services+"/"+info["serInstanceId"].(string)).Object(), info)
		}
	})
}

func TestQueriesThatAreRefused(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	a := newApp(p.Client(t))
	a.register(own("a"))
	for _, x := range []struct {
		name, query string
		about       string // "" is any
	}{
		{"an unknown parameter", "instance_id=x", "instance_id"},
		{"an unknown parameter beside a known one", "ser_name=a&limit=5", "limit"},
		{"an unknown parameter without a value", "verbose", "verbose"},
		{"a parameter in other letters", "Ser_Name=a", "Ser_Name"},
		{"a parameter of MEC 009 that MEC 011 does not have", "filter=(eq,serName,a)", "filter"},
		{"a parameter without a name", "=x", ""},
		{"name and id", "ser_name=a&ser_instance_id=x", ""},
		{"name and category", "ser_name=a&ser_category_id=x", ""},
		{"id and category", "ser_instance_id=a&ser_category_id=x", ""},
		{"all three", "ser_instance_id=a&ser_category_id=x&ser_name=y", ""},
		{"an empty name", "ser_name=", "ser_name"},
		{"a name without a value", "ser_name", "ser_name"},
		{"an empty name among others", "ser_name=a,,b", "ser_name"},
		{"a comma at the end", "ser_name=a,", "ser_name"},
		{"an empty id", "ser_instance_id=", "ser_instance_id"},
		{"an empty category", "ser_category_id=", "ser_category_id"},
		{"more than a hundred names", "ser_name=" + strings.Repeat("q,", 100) + "q", "ser_name"},
		{"two categories", "ser_category_id=a&ser_category_id=b", "ser_category_id"},
		{"an unknown scope", "scope_of_locality=GALAXY", "scope_of_locality"},
		{"a scope in other letters", "scope_of_locality=zone", "scope_of_locality"},
		{"an empty scope", "scope_of_locality=", "scope_of_locality"},
		{"TRUE", "is_local=TRUE", "is_local"},
		{"1", "is_local=1", "is_local"},
		{"yes", "consumed_local_only=yes", "consumed_local_only"},
		{"an empty boolean", "consumed_local_only=", "consumed_local_only"},
		{"a boolean without a value", "is_local", "is_local"},
		{"two booleans in one", "is_local=true,false", "is_local"},
		{"a broken escape in a value", "ser_name=%zz", "ser_name"},
		{"a broken escape in a name", "%zz=a", ""},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			c := p.Client(t)
			for _, path := range []string{services, "/mep" + services, a.services()} {
				problem := c.Get(path + "?" + x.query).Problem(400)
				if x.about != "" {
					require.Contains(t, problem.Detail, x.about)
					require.Contains(t, problem.Names(), x.about)
				}
				c.Head(path + "?" + x.query).Is(400)
			}
		})
	}
	// These may occur once (MEC 011 8.2.3.3.1: 0..1). To pick one of two contradicting values would hide a mistake.
	for _, query := range []string{
		"is_local=true&is_local=false", "consumed_local_only=true&consumed_local_only=false",
		"scope_of_locality=ZONE&scope_of_locality=MEC_HOST",
	} {
		t.Run("contradicting values of one parameter: "+query, func(t *testing.T) {
			t.Parallel()
			c := p.Client(t)
			name, _, _ := strings.Cut(query, "=")
			require.Contains(t, c.Get(services+"?"+query).Problem(400).Names(), name)
		})
	}
	t.Run("everything that is wrong is named at once", func(t *testing.T) {
		t.Parallel()
		require.ElementsMatch(t, []string{"limit", "is_local", "scope_of_locality", "ser_name"},
			p.Client(t).Get(services+"?limit=1&is_local=x&scope_of_locality=y&ser_name=").Problem(400).Names())
	})
}

func TestALongListIsWhole(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	a := newApp(p.Unchecked(t))
	const count = 300
	var want []string
	for i := range count {
		// The description makes the list longer than any buffer on its way.
		a.register(but(own(fmt.Sprintf("n%03d", i)), "transportInfo.description", strings.Repeat("ä", 900)))
		want = append(want, fmt.Sprintf("n%03d", i))
	}
	c := p.Client(t)
	for _, path := range []string{services, a.services()} {
		answer := c.Get(path).Is(200)
		require.Equal(t, want, names(answer.Array(), "serName"))
		require.Equal(t, strconv.Itoa(len(answer.Body)), answer.Header.Get("Content-Length"))
	}
	for _, id := range names(c.Get(services).Array(), "serInstanceId")[:count-3] {
		a.remove(id)
	}
	require.Len(t, c.Get(services).Array(), 3)
}
