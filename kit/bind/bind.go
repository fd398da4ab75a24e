// Package bind decodes JSON bodies strictly and reports everything that is wrong with them at once.
//
// Unlike encoding/json it continues after a member of a wrong type, so that a client learns of all its mistakes in one
// response. Syntax errors, invalid UTF-8, duplicate member names, excessive nesting and overlong arrays end the
// decoding. Unknown members are ignored and null stands for an absent member, as MEC 009 asks of receivers.
package bind

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"strconv"
	"strings"
	"sync"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/openmep/mep/api/problem"
)

// Bounds that apply whatever the target type is.
const (
	// MaxDepth is how deeply arrays and objects may nest.
	MaxDepth = 32
	// MaxElements is how many elements one array may have.
	MaxElements = 1000
	// MaxFaults is how many faults are reported before decoding stops.
	MaxFaults = 50
)

// SyntaxError reports that a body is not acceptable JSON at all.
type SyntaxError struct {
	// Offset is the position of the fault in bytes from the start of the body.
	Offset int64
	// Reason is a sentence fragment without a trailing full stop.
	Reason string
}

// Error describes the fault and where it is.
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("the body is not acceptable JSON: %s (at byte %d)", e.Reason, e.Offset)
}

// JSON reads data into dst, a pointer to a struct whose fields carry json tags. Members of a wrong type
// are added to faults and leave their field untouched. The error is a *SyntaxError when data is not an
// acceptable JSON object.
//
// Supported field types are strings, booleans, integers, floats, structs, slices and maps with string keys of
// these, pointers to these, and json.RawMessage for members that may hold anything.
func JSON(data []byte, dst any, faults *problem.InvalidParams) error {
	if len(bytes.TrimSpace(data)) == 0 {
		return &SyntaxError{Reason: "the body is empty, a JSON object is needed"}
	}
	r := &reader{dec: jsontext.NewDecoder(bytes.NewBuffer(data)), faults: faults}
	if k := r.dec.PeekKind(); k != '{' && k != 0 {
		return &SyntaxError{Reason: "an object is needed, found " + kindName(k)}
	}
	v := reflect.ValueOf(dst).Elem()
	if err := r.value(v, nil); err != nil {
		return r.syntax(err)
	}
	if _, err := r.dec.ReadToken(); !errors.Is(err, io.EOF) {
		return &SyntaxError{Offset: r.dec.InputOffset(), Reason: "something follows the object"}
	}
	return nil
}

var errTooManyFaults = errors.New("too many faults")

type reader struct {
	dec    *jsontext.Decoder
	faults *problem.InvalidParams
}

// path is a linked list from a member up to the root; it is rendered only for faults.
type path struct {
	parent *path
	name   string
	index  int
}

func (p *path) String() string {
	if p == nil {
		return "body"
	}
	if p.name == "" {
		return p.parent.String() + "[" + strconv.Itoa(p.index) + "]"
	}
	if p.parent == nil {
		return p.name
	}
	return p.parent.String() + "." + p.name
}

func (r *reader) syntax(err error) error {
	if errors.Is(err, errTooManyFaults) {
		return nil
	}
	if mine, ok := errors.AsType[*SyntaxError](err); ok {
		return mine
	}
	reason := "malformed"
	var syn *jsontext.SyntacticError
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName):
		reason = "a member occurs twice"
		if errors.As(err, &syn) {
			reason = fmt.Sprintf("the member %q occurs twice", syn.JSONPointer.LastToken())
		}
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		reason = "it ends too early"
	case errors.As(err, &syn) && syn.Err != nil:
		reason = strings.TrimPrefix(syn.Err.Error(), "jsontext: ")
	}
	return &SyntaxError{Offset: r.dec.InputOffset(), Reason: reason}
}

func (r *reader) fault(p *path, reason string) error {
	r.faults.Add(p.String(), reason)
	if len(*r.faults) >= MaxFaults {
		return errTooManyFaults
	}
	return nil
}

// mismatch skips the next value and records that it has the wrong type.
func (r *reader) mismatch(p *path, want string, got jsontext.Kind) error {
	if err := r.skip(); err != nil {
		return err
	}
	return r.fault(p, "must be "+want+", not "+kindName(got))
}

var rawType = reflect.TypeFor[json.RawMessage]()

func (r *reader) value(v reflect.Value, p *path) error {
	kind := r.dec.PeekKind()
	if kind == 0 {
		_, err := r.dec.ReadToken()
		return err
	}
	if r.dec.StackDepth() >= MaxDepth && (kind == '{' || kind == '[') {
		return &SyntaxError{Offset: r.dec.InputOffset(), Reason: fmt.Sprintf("it is nested deeper than %d levels", MaxDepth)}
	}
	if kind == 'n' {
		_, err := r.dec.ReadToken()
		return err
	}
	if v.Type() == rawType {
		return r.raw(v)
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.Type().Elem().Kind() == reflect.Struct && kind != '{' {
			return r.mismatch(p, "an object", kind)
		}
		n := reflect.New(v.Type().Elem())
		before := len(*r.faults)
		if err := r.value(n.Elem(), p); err != nil {
			return err
		}
		if len(*r.faults) == before || v.Type().Elem().Kind() == reflect.Struct {
			v.Set(n)
		}
		return nil
	case reflect.Struct:
		if kind != '{' {
			return r.mismatch(p, "an object", kind)
		}
		return r.object(v, p)
	case reflect.Map:
		if kind != '{' {
			return r.mismatch(p, "an object", kind)
		}
		return r.mapping(v, p)
	case reflect.Slice:
		if kind != '[' {
			return r.mismatch(p, "an array", kind)
		}
		return r.array(v, p)
	default:
		return r.scalar(v, p, kind)
	}
}

func (r *reader) scalar(v reflect.Value, p *path, kind jsontext.Kind) error {
	switch v.Kind() {
	case reflect.String:
		if kind != '"' {
			return r.mismatch(p, "a string", kind)
		}
	case reflect.Bool:
		if kind != 't' && kind != 'f' {
			return r.mismatch(p, "true or false", kind)
		}
	default:
		if kind != '0' {
			return r.mismatch(p, "a number", kind)
		}
	}
	tok, err := r.dec.ReadToken()
	if err != nil {
		return err
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(tok.String())
	case reflect.Bool:
		v.SetBool(tok.Bool())
	case reflect.Float64, reflect.Float32:
		f, err := strconv.ParseFloat(tok.String(), v.Type().Bits())
		if err != nil {
			return r.fault(p, "is outside the range of numbers")
		}
		v.SetFloat(f)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, ok := integer(tok.String())
		if !ok || v.OverflowInt(n) {
			return r.fault(p, fmt.Sprintf("must be a whole number of %d bits, not %s", v.Type().Bits(), clip(tok.String())))
		}
		v.SetInt(n)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, ok := integer(tok.String())
		if !ok || n < 0 || v.OverflowUint(uint64(n)) {
			return r.fault(p, fmt.Sprintf("must be a whole number from 0 to 2^%d-1, not %s", v.Type().Bits(), clip(tok.String())))
		}
		v.SetUint(uint64(n))
	default:
		return fmt.Errorf("bind: field %s has the unsupported type %s", p, v.Type())
	}
	return nil
}

// integer parses a JSON number that is whole, however it is written: 60, 6e1 and 60.0 are the same. It is exact: no
// fraction is too small to count.
func integer(s string) (int64, bool) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return n, true
	}
	mantissa, exponent, _ := strings.Cut(strings.ToLower(s), "e")
	exp := 0
	if exponent != "" {
		var err error
		if exp, err = strconv.Atoi(exponent); err != nil {
			exp = math.MaxInt32 // too large for any number but 0e…
			if exponent[0] == '-' {
				exp = -exp
			}
		}
	}
	sign := ""
	if mantissa[0] == '-' {
		sign, mantissa = "-", mantissa[1:]
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	digits := strings.TrimRight(whole+fraction, "0")
	exp += len(whole) - len(digits) // digits × 10^exp, with no trailing zero in digits
	switch digits = strings.TrimLeft(digits, "0"); {
	case digits == "":
		return 0, true
	case exp < 0 || exp > 19:
		return 0, false
	}
	n, err := strconv.ParseInt(sign+digits+strings.Repeat("0", exp), 10, 64)
	return n, err == nil
}

func clip(s string) string {
	if len(s) > 32 {
		return s[:32] + "…"
	}
	return s
}

func (r *reader) object(v reflect.Value, p *path) error {
	if _, err := r.dec.ReadToken(); err != nil {
		return err
	}
	fields := fieldsOf(v.Type())
	for r.dec.PeekKind() != '}' {
		tok, err := r.dec.ReadToken()
		if err != nil {
			return err
		}
		name := tok.String()
		index, known := fields.byName[name]
		if !known {
			if err := r.unknown(v, fields, name); err != nil {
				return err
			}
			continue
		}
		if err := r.value(v.FieldByIndex(index), &path{parent: p, name: name}); err != nil {
			return err
		}
	}
	_, err := r.dec.ReadToken()
	return err
}

// unknown skips a member that the type does not have, or keeps it if the type collects such members.
func (r *reader) unknown(v reflect.Value, fields fields, name string) error {
	if fields.rest == nil {
		return r.skip()
	}
	value := reflect.New(rawType).Elem()
	if err := r.raw(value); err != nil {
		return err
	}
	rest := v.FieldByIndex(fields.rest)
	if rest.IsNil() {
		rest.Set(reflect.MakeMap(rest.Type()))
	}
	if rest.Len() >= MaxElements {
		return &SyntaxError{Offset: r.dec.InputOffset(), Reason: fmt.Sprintf("an object has more than %d further members", MaxElements)}
	}
	rest.SetMapIndex(reflect.ValueOf(name), value)
	return nil
}

func (r *reader) mapping(v reflect.Value, p *path) error {
	if _, err := r.dec.ReadToken(); err != nil {
		return err
	}
	m := reflect.MakeMap(v.Type())
	for r.dec.PeekKind() != '}' {
		tok, err := r.dec.ReadToken()
		if err != nil {
			return err
		}
		name := tok.String()
		if m.Len() >= MaxElements {
			return &SyntaxError{Offset: r.dec.InputOffset(), Reason: fmt.Sprintf("%s has more than %d members", p, MaxElements)}
		}
		e := reflect.New(v.Type().Elem()).Elem()
		if err := r.value(e, &path{parent: p, name: name}); err != nil {
			return err
		}
		m.SetMapIndex(reflect.ValueOf(name), e)
	}
	v.Set(m)
	_, err := r.dec.ReadToken()
	return err
}

func (r *reader) array(v reflect.Value, p *path) error {
	if _, err := r.dec.ReadToken(); err != nil {
		return err
	}
	s := reflect.MakeSlice(v.Type(), 0, 1)
	for i := 0; r.dec.PeekKind() != ']'; i++ {
		if i >= MaxElements {
			return &SyntaxError{Offset: r.dec.InputOffset(), Reason: fmt.Sprintf("%s has more than %d elements", p, MaxElements)}
		}
		at := &path{parent: p, index: i}
		e := reflect.New(v.Type().Elem()).Elem()
		if r.dec.PeekKind() == 'n' {
			if err := r.mismatch(at, "a value", 'n'); err != nil {
				return err
			}
			continue
		}
		if err := r.value(e, at); err != nil {
			return err
		}
		s = reflect.Append(s, e)
	}
	v.Set(s)
	_, err := r.dec.ReadToken()
	return err
}

// skip reads over the next value, with the same bound on depth as for a value that is kept.
func (r *reader) skip() error {
	base := r.dec.StackDepth()
	for {
		tok, err := r.dec.ReadToken()
		if err != nil {
			return err
		}
		if k := tok.Kind(); (k == '{' || k == '[') && r.dec.StackDepth() > MaxDepth {
			return &SyntaxError{Offset: r.dec.InputOffset(), Reason: fmt.Sprintf("it is nested deeper than %d levels", MaxDepth)}
		}
		if r.dec.StackDepth() <= base {
			return nil
		}
	}
}

// raw keeps the next value as it is, without insignificant white space.
func (r *reader) raw(v reflect.Value) error {
	start := r.dec.StackDepth()
	val, err := r.dec.ReadValue()
	if err != nil {
		return err
	}
	if depth(val)+start > MaxDepth {
		return &SyntaxError{Offset: r.dec.InputOffset(), Reason: fmt.Sprintf("it is nested deeper than %d levels", MaxDepth)}
	}
	kept := bytes.Clone(val)
	c := jsontext.Value(kept)
	if err := c.Compact(); err != nil {
		return err
	}
	v.SetBytes(c)
	return nil
}

// depth returns how deeply a syntactically valid value nests.
func depth(val []byte) int {
	var now, deepest int
	inString := false
	for i := 0; i < len(val); i++ {
		switch c := val[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			now++
			deepest = max(deepest, now)
		case c == '}' || c == ']':
			now--
		}
	}
	return deepest
}

func kindName(k jsontext.Kind) string {
	switch k {
	case 'n':
		return "null"
	case 't', 'f':
		return "a boolean"
	case '"':
		return "a string"
	case '0':
		return "a number"
	case '{':
		return "an object"
	case '[':
		return "an array"
	}
	return "something else"
}

// fields maps the members of a struct type to its fields.
type fields struct {
	byName map[string][]int
	// rest is the field that takes all other members; nil if they are ignored.
	rest []int
}

var fieldCache sync.Map // reflect.Type → fields

// fieldsOf maps member names to field indexes; embedded structs are promoted. A field may accept further
// spellings with the tag `alias:"a,b"`, and a field of type map[string]json.RawMessage with the tag `bind:"rest"`
// takes the members no other field does.
func fieldsOf(t reflect.Type) fields {
	if c, ok := fieldCache.Load(t); ok {
		return c.(fields)
	}
	fs := fields{byName: make(map[string][]int)}
	for _, f := range reflect.VisibleFields(t) {
		if !f.IsExported() || f.Anonymous {
			continue
		}
		if f.Tag.Get("bind") == "rest" {
			fs.rest = f.Index
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" {
			continue
		}
		if name == "" {
			name = f.Name
		}
		fs.byName[name] = f.Index
		for alias := range strings.SplitSeq(f.Tag.Get("alias"), ",") {
			if alias != "" {
				fs.byName[alias] = f.Index
			}
		}
	}
	fieldCache.Store(t, fs)
	return fs
}
