package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// act is an entry of the audit file.
type act struct {
	Time                                                        time.Time
	Action, Result, Caller, Client, Via, Source, Target, Detail string
}

// who returns the name of the caller, or "nobody" if it was not authenticated.
func (a act) who() string {
	name := cmp.Or(a.Caller, "nobody")
	if strings.HasPrefix(name, "uid:") {
		return "operator"
	}
	return cmp.Or(names[name], name)
}

// String returns the form used in expectedActs.
func (a act) String() string { return a.Action + " " + a.Result + " " + a.who() }

// expectedActs lists the expected entries of the audit file, where consecutive equal ones count once.
var expectedActs = []string{
	"credential.create success platform",
	"token.issue success mepm",
	"credential.put success mepm",
	"token.issue success producer",
	"token.issue success consumer",
	"app.configure success mepm",
	"dns.record.create success mepm",
	"token.issue success mepm",    // of the operator, with the MEPM's credentials
	"access.deny denied consumer", // the producer's service, and the MEPM's API
	"gateway.api_key.create success mepm",
	"token.issue success mepm", // of the operator
	"gateway.api_key.delete success mepm",
	"access.deny denied nobody",       // with the key that was deleted
	"gateway.policy.put success mepm", // a quota, then sharing on request
	"access.deny denied consumer",     // who has not applied for it
	"gateway.access.apply success consumer",
	"gateway.access.decide failed consumer",
	"gateway.access.decide success producer", // granted, and taken back
	"access.deny denied consumer",
	"token.issue success mepm", // of the operator
	"gateway.access.delete success consumer",
	"gateway.policy.delete success mepm",
	"credential.put success mepm", // EdgeGallery's way
	"app.configure success mepm",
	"app.unconfigure success mepm",
	"credential.delete success platform", // of the app instance that is terminated
	"app.terminate success mepm",
	"token.issue success consumer",
	"key.rotate success operator",
	"token.issue success consumer",
	"token.issue success producer", // signed with the new key
	"credential.rotate success mepm",
	"token.issue success producer", // with both secret keys
	"token.issue denied nobody",    // with the old one
	"app.terminate success mepm",   // the producer
	"credential.delete success platform",
	"access.deny denied nobody",
	"token.issue denied nobody",
	"app.terminate success mepm", // the consumer
	"credential.delete success platform",
	"access.deny denied nobody",
	"token.issue denied nobody",
}

// showAudit shows the entries, combining repeated ones, and expects them to be those of the story.
func (s *story) showAudit(audited []byte) {
	var all, acts []act
	for line := range strings.Lines(string(audited)) {
		var a act
		must(json.Unmarshal([]byte(line), &a))
		all = append(all, a)
	}
	// Several processes write to the file, and frequent events are written with a delay.
	slices.SortStableFunc(all, func(a, b act) int { return a.Time.Compare(b.Time) })
	var times []int
	for _, a := range all {
		if last := len(acts) - 1; last >= 0 && acts[last].String() == a.String() && acts[last].Detail == a.Detail && acts[last].Via == a.Via {
			times[last]++
			continue
		}
		acts, times = append(acts, a), append(times, 1)
	}
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	var told []string
	for i, a := range acts {
		detail := clip(cmp.Or(a.Detail, a.Target))
		if a.Action == "token.issue" {
			detail = clip(cmp.Or(a.Detail, a.Client))
		}
		if times[i] > 1 {
			detail += fmt.Sprintf(" (%d times)", times[i])
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", a.Time.Format("15:04:05.000"), a.Action, a.Result, a.who(), cmp.Or(a.Via, "-"), detail)
		told = append(told, a.String())
	}
	must(w.Flush())
	s.text("operator: when, what, result, who, how, whom or why", table.String())
	told = slices.Compact(told)
	expect(slices.Equal(told, expectedActs), "the audit file tells\n%s\nwant\n%s", strings.Join(told, "\n"), strings.Join(expectedActs, "\n"))
}

// clip shortens details that would make a line too long.
func clip(detail string) string {
	const most = 60
	if len(detail) <= most { // in bytes; the text is ASCII
		return detail
	}
	return detail[:most] + "…"
}

// expectNoSecret searches a text for all secrets seen so far.
func (s *story) expectNoSecret(where, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for secret := range s.secrets {
		expect(len(secret) > 20, "a secret of %d characters went by", len(secret))
		expect(!strings.Contains(text, secret), "%s has a secret or a token", where)
	}
}
