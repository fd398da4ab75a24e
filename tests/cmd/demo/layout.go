package main

import (
	"encoding/json"
	"fmt"
	"strings"
)

const (
	indent = "      "
	width  = 110 // of a line of JSON
	// longBody is the number of lines from which a body is shown only once.
	longBody = 7
)

// secretMembers are the members of JSON objects whose values are hidden.
var secretMembers = map[string]bool{"secretKey": true, "access_token": true, "refresh_token": true, "key": true}

// pretty formats JSON compactly, without secrets. For a long body that was shown before, it refers to that step.
func (s *screen) pretty(body []byte) string {
	if !json.Valid(body) {
		return ""
	}
	dec := json.NewDecoder(strings.NewReader(string(body)))
	dec.UseNumber()
	text := indent + s.layout(dec, indent, false) + "\n"
	if strings.Count(text, "\n") < longBody {
		return text
	}
	if step, shown := s.bodies[text]; shown {
		return fmt.Sprintf("%s(the same as in step %d)\n", indent, step)
	}
	s.bodies[text] = s.steps
	return text
}

// layout formats a JSON value on one line if it fits, or else on as few lines as possible.
func (s *screen) layout(dec *json.Decoder, indent string, secret bool) string {
	token, _ := dec.Token()
	start, isDelim := token.(json.Delim)
	if !isDelim {
		return s.scalar(token, secret)
	}
	var lines []string // the members or elements, as many per line as fit
	for dec.More() {
		item, secret := "", secret
		if start == '{' {
			name, _ := dec.Token()
			item = fmt.Sprintf("%q: ", name)
			secret = secret || secretMembers[name.(string)]
		}
		item += s.layout(dec, indent+"  ", secret)
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

func (s *screen) scalar(token json.Token, secret bool) string {
	if text, ok := token.(string); ok {
		token = s.short(text)
		if secret && text != "" {
			token = s.hide(text)
		}
	}
	text, _ := json.Marshal(token)
	return string(text)
}
