package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// Level says how bad a finding is.
type Level string

// The levels.
const (
	// OK is something that was looked at and is in order.
	OK Level = "ok"
	// Note is something to know, such as a check that could not be made and why.
	Note Level = "note"
	// Warn is something that works, but should be changed.
	Warn Level = "warn"
	// Fail is something that does not work, or is not safe.
	Fail Level = "fail"
)

// Finding is the result of a check for one thing.
type Finding struct {
	// Check is the name of the check.
	Check string `json:"check"`
	Level Level  `json:"level"`
	// Subject is what the finding is about: a file, an address, the name of a setting. Finding continues the sentence.
	Subject string `json:"subject"`
	Finding string `json:"finding"`
	// Remedy says what to do; empty if nothing has to be done.
	Remedy string `json:"remedy"`
}

// Report is the findings of an examination, grouped by the checks.
type Report []Finding

// Faults counts the findings at level Fail.
func (r Report) Faults() int {
	n := 0
	for _, f := range r {
		if f.Level == Fail {
			n++
		}
	}
	return n
}

// WriteText writes a line for each finding.
func (r Report) WriteText(w io.Writer) error {
	for _, f := range r {
		level := string(f.Level)
		if f.Level == Fail {
			level = strings.ToUpper(level)
		}
		line := fmt.Sprintf("%-4s  %-14s  %s %s", level, f.Check, f.Subject, f.Finding)
		if f.Remedy != "" {
			line += ": " + f.Remedy
		}
		if _, err := fmt.Fprintln(w, oneLine(line)); err != nil {
			return err
		}
	}
	return nil
}

// oneLine replaces control characters, as in a server's error, which would break the line.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}

// WriteJSON writes an array of the findings.
func (r Report) WriteJSON(w io.Writer) error {
	if r == nil {
		r = Report{}
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(r)
}

// findings collects the findings of one check.
type findings struct {
	check string
	list  []Finding
}

func (f *findings) add(level Level, subject, finding, remedy string) {
	f.list = append(f.list, Finding{Check: f.check, Level: level, Subject: subject, Finding: finding, Remedy: remedy})
}

func (f *findings) ok(subject, finding string)           { f.add(OK, subject, finding, "") }
func (f *findings) note(subject, finding string)         { f.add(Note, subject, finding, "") }
func (f *findings) warn(subject, finding, remedy string) { f.add(Warn, subject, finding, remedy) }
func (f *findings) fail(subject, finding, remedy string) { f.add(Fail, subject, finding, remedy) }

// worst returns the level of the worst finding so far; OK if there is none.
func (f *findings) worst() Level {
	worst := OK
	for _, one := range f.list {
		switch one.Level {
		case Fail:
			return Fail
		case Warn:
			worst = Warn
		case OK, Note:
		}
	}
	return worst
}
