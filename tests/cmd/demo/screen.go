package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
)

// screen shows what happens, one block at a time, without secrets.
type screen struct {
	mu      sync.Mutex
	out     io.Writer
	shown   bytes.Buffer // everything shown so far
	colour  bool
	steps   int
	shorter *strings.Replacer
	secrets map[string]bool // all secrets seen so far
	bodies  map[string]int  // the step in which a long body was shown
}

func newScreen(out *os.File) *screen {
	info, err := out.Stat()
	_, plain := os.LookupEnv("NO_COLOR") //nolint:misspell // its name, see no-color.org
	s := &screen{
		secrets: make(map[string]bool), bodies: make(map[string]int), shorter: strings.NewReplacer(),
		colour: err == nil && info.Mode()&os.ModeCharDevice != 0 && !plain,
	}
	s.out = io.MultiWriter(&s.shown, out)
	return s
}

// abbreviate sets the abbreviations used from now on: pairs of a text and its replacement.
func (s *screen) abbreviate(oldnew ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shorter = strings.NewReplacer(oldnew...)
}

// The colours of narration, requests and commands, answers, refusals and notifications.
const bold, blue, green, red, yellow = "1", "34", "32", "31", "33"

func (s *screen) paint(colour, text string) string {
	if s.colour {
		text = "\x1b[" + colour + "m" + text + "\x1b[0m"
	}
	return text
}

// step narrates what comes next.
func (s *screen) step(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.steps++
	fmt.Fprintf(s.out, "\n%s\n", s.paint(bold, fmt.Sprintf("%d. "+format, append([]any{s.steps}, args...)...)))
}

// note adds to the narration.
func (s *screen) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.out, "   (%s)\n", s.short(fmt.Sprintf(format, args...)))
}

// text shows lines from the platform or from a file below a heading.
func (s *screen) text(what, lines string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.out, "\n   %s\n", s.paint(blue, s.short(what)))
	for line := range strings.Lines(lines) {
		fmt.Fprintf(s.out, "%s%s\n", indent, s.short(strings.TrimRight(line, " \n")))
	}
}

// json shows a document below a heading.
func (s *screen) json(what string, document []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.out, "\n   %s\n%s", s.paint(blue, s.short(what)), s.pretty(document))
}

var uuids = regexp.MustCompile(`\b([0-9a-f]{8})(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b`)

// short shortens long parts of a text that carry little information.
func (s *screen) short(text string) string {
	return uuids.ReplaceAllString(s.shorter.Replace(text), "$1…")
}

// hidden stands for a secret.
const hidden = "••••"

// hide records a secret, a token, or a proof of possession, so that the output can be searched for it in the end. It returns
// the replacement to show.
func (s *screen) hide(secret string) string {
	// The last part of a token is its signature: the other parts are not secret, and useless without it.
	s.secrets[secret[strings.LastIndexByte(secret, '.')+1:]] = true
	return hidden
}

// secret is like hide for secrets that are not shown on the screen.
func (s *screen) secret(secret string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hide(secret)
}
