package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
)

// screen shows what happens, one block at a time.
type screen struct {
	mu     sync.Mutex
	out    io.Writer
	colour bool
	steps  int
	base   string // what URLs start with; shown as an ellipsis
}

func newScreen(out *os.File) *screen {
	info, err := out.Stat()
	_, plain := os.LookupEnv("NO_COLOR") //nolint:misspell // its name, see no-color.org
	return &screen{out: out, colour: err == nil && info.Mode()&os.ModeCharDevice != 0 && !plain}
}

// The colours of narration, requests, answers, refusals and notifications.
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
	fmt.Fprintf(s.out, "   ("+format+")\n", args...)
}

// notified shows a notification that who receives.
func (s *screen) notified(who string, notification any) {
	body, _ := json.Marshal(notification)
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.out, "\n   %s\n%s", s.paint(yellow, who+" <- notification"), s.pretty(body))
}

// window is a transport that shows the requests of who and their answers.
type window struct {
	*screen
	who string
}

// RoundTrip holds the screen from the request to the answer, so that a notification that overtakes the answer is shown after it.
func (w window) RoundTrip(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fmt.Fprintf(w.out, "\n   %s\n", w.paint(blue, w.who+" -> "+r.Method+" "+w.short(r.URL.RequestURI())))
	w.headers(r.Header, "If-Match")
	if r.GetBody != nil {
		body, _ := r.GetBody()
		sent, _ := io.ReadAll(body)
		fmt.Fprint(w.out, w.pretty(sent))
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		fmt.Fprintf(w.out, "   %s\n", w.paint(red, err.Error()))
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	resp.Body = io.NopCloser(bytes.NewReader(body))
	colour := green
	if resp.StatusCode >= 400 {
		colour = red
	}
	fmt.Fprintf(w.out, "   %s\n", w.paint(colour, resp.Status))
	w.headers(resp.Header, "ETag", "Location")
	fmt.Fprint(w.out, w.pretty(body))
	return resp, err
}

func (s *screen) headers(h http.Header, names ...string) {
	for _, name := range names {
		if v := h.Get(name); v != "" {
			fmt.Fprintf(s.out, "      %s: %s\n", name, s.short(v))
		}
	}
}

var uuids = regexp.MustCompile(`\b([0-9a-f]{8})(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b`)

// short leaves out what makes lines long and says little.
func (s *screen) short(text string) string {
	return uuids.ReplaceAllString(strings.ReplaceAll(text, s.base, "…"), "$1…")
}

const (
	indent = "      "
	width  = 110 // of a line of JSON
)

// pretty lays JSON out in few lines.
func (s *screen) pretty(body []byte) string {
	if !json.Valid(body) {
		return ""
	}
	return indent + layout(json.NewDecoder(strings.NewReader(s.short(string(body)))), indent) + "\n"
}

// layout sets a JSON value on one line when it fits there, else over as few lines as possible.
func layout(dec *json.Decoder, indent string) string {
	dec.UseNumber()
	token, _ := dec.Token()
	start, isDelim := token.(json.Delim)
	if !isDelim {
		text, _ := json.Marshal(token)
		return string(text)
	}
	var lines []string // the members or elements, as many on one as there is room for
	for dec.More() {
		item := ""
		if start == '{' {
			name, _ := dec.Token()
			item = fmt.Sprintf("%q: ", name)
		}
		item += layout(dec, indent+"  ")
		last := len(lines) - 1
		if last < 0 || strings.Contains(lines[last]+item, "\n") || len(indent+lines[last]+item) > width {
			lines = append(lines, item)
		} else {
			lines[last] += ", " + item
		}
	}
	end, _ := dec.Token()
	if len(lines) == 0 || len(lines) == 1 && !strings.Contains(lines[0], "\n") {
		return fmt.Sprint(start, strings.Join(lines, ""), end)
	}
	return fmt.Sprint(start, "\n"+indent+"  ", strings.Join(lines, ",\n"+indent+"  "), "\n"+indent, end)
}
