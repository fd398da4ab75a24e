package settings

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// variables substitutes environment variables for ${NAME} in a file that has been parsed, so that no value can change the structure of
// the file.
type variables struct {
	env func(string) (string, bool)
	// put holds the scalars with replaced variables. They are strings unless the member they are for requires otherwise.
	put map[*yaml.Node]bool
}

// lineError is an error in a line of the file.
type lineError struct {
	line int
	err  error
}

func (e *lineError) Error() string { return e.err.Error() }
func (e *lineError) Unwrap() error { return e.err }

// expand replaces the variables in the scalars of a value. Keys stay as they are; the target of an alias is expanded where it is
// defined.
func (v *variables) expand(node *yaml.Node) error {
	switch node.Kind {
	case yaml.ScalarNode:
		return v.expandScalar(node)
	case yaml.MappingNode:
		for i := 1; i < len(node.Content); i += 2 {
			if err := v.expand(node.Content[i]); err != nil {
				return err
			}
		}
	case yaml.SequenceNode:
		for _, e := range node.Content {
			if err := v.expand(e); err != nil {
				return err
			}
		}
	}
	return nil
}

func (v *variables) expandScalar(node *yaml.Node) error {
	if v.put[node] || !strings.Contains(node.Value, "${") {
		return nil
	}
	text, err := v.replace(node.Value)
	if err != nil {
		return &lineError{line: node.Line, err: err}
	}
	node.Value = text
	v.put[node] = true
	return nil
}

// replace resolves ${NAME} and ${NAME:-default} in a text; $${ stands for ${. Values of variables are not expanded again.
func (v *variables) replace(text string) (string, error) {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(text, "${")
		if !found {
			b.WriteString(text)
			return b.String(), nil
		}
		if literal, escaped := strings.CutSuffix(before, "$"); escaped {
			b.WriteString(literal + "${")
			text = after
			continue
		}
		inner, rest, closed := strings.Cut(after, "}")
		if !closed {
			return "", fmt.Errorf(`"${" has no "}"; "$${" stands for "${" itself`)
		}
		value, err := v.value(inner)
		if err != nil {
			return "", err
		}
		b.WriteString(before)
		b.WriteString(value)
		text = rest
	}
}

// value returns the replacement for NAME or NAME:-default. As in a shell, the default also applies to an empty variable.
func (v *variables) value(inner string) (string, error) {
	name, otherwise, optional := strings.Cut(inner, ":-")
	if !isVariable(name) {
		return "", fmt.Errorf(`%q is not the name of an environment variable; "$${" stands for "${" itself`, name)
	}
	value, set := "", false
	if v.env != nil {
		value, set = v.env(name)
	}
	switch {
	case optional && value == "":
		return otherwise, nil
	case !set:
		return "", fmt.Errorf("the environment variable %s is not set; ${%s:-…} gives it a default", name, name)
	case !utf8.ValidString(value):
		return "", fmt.Errorf("the environment variable %s does not hold UTF-8", name)
	}
	return value, nil
}

func isVariable(s string) bool {
	for i, c := range []byte(s) {
		letter := c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// typed turns scalars with replaced variables into numbers and booleans where a type requires it: the value of a variable has no type
// of its own, and one that looks like a number stays a string where a string is required.
func (v *variables) typed(node *yaml.Node, t reflect.Type) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if node.Kind == yaml.AliasNode && node.Alias.Kind == yaml.ScalarNode && v.put[node.Alias] {
		// The same value may be required as a string elsewhere.
		*node = yaml.Node{Kind: yaml.ScalarNode, Tag: node.Alias.Tag, Value: node.Alias.Value, Line: node.Line}
		v.put[node] = true
	}
	switch {
	case node.Kind == yaml.ScalarNode && v.put[node]:
		if tag, ok := tagOf(node.Value, t.Kind()); ok && (node.Tag == "" || node.Tag == "!!str") {
			node.Tag, node.Style = tag, 0
		}
	case node.Kind == yaml.SequenceNode && t.Kind() == reflect.Slice:
		for _, e := range node.Content {
			v.typed(e, t.Elem())
		}
	case node.Kind == yaml.MappingNode:
		for i := 0; i+1 < len(node.Content); i += 2 {
			if member := memberOf(t, node.Content[i].Value); member != nil {
				v.typed(node.Content[i+1], member)
			}
		}
	}
}

// tagOf returns the YAML tag of a text as a value of a kind. A text that is no such value stays a string, which is then refused as such.
func tagOf(text string, kind reflect.Kind) (tag string, ok bool) {
	switch kind {
	case reflect.Bool:
		return "!!bool", text == "true" || text == "false"
	case reflect.Float32, reflect.Float64:
		_, err := strconv.ParseFloat(text, 64)
		return "!!float", err == nil && json.Valid([]byte(text)) && strings.TrimSpace(text) == text
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, err := strconv.ParseInt(text, 10, 64)
		return "!!int", err == nil && strconv.FormatInt(n, 10) == text
	}
	return "", false
}

// memberOf returns the type of a member of an object that is decoded into t; nil if it is unknown.
func memberOf(t reflect.Type, name string) reflect.Type {
	switch t.Kind() {
	case reflect.Map:
		return t.Elem()
	case reflect.Struct:
		for _, f := range reflect.VisibleFields(t) {
			member, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if f.IsExported() && !f.Anonymous && member == name {
				return f.Type
			}
		}
	}
	return nil
}
