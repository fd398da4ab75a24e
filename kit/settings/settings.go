// Package settings fills a configuration struct from defaults, a strict YAML file, the environment and flags, in this order: each
// later source overrides the earlier ones.
//
// In values of the file, ${NAME} stands for an environment variable, ${NAME:-default} for an optional one, and $${ for ${ itself.
//
// A setting has one name, from which every source derives its spelling. The field tag `name:"mp1.listen"` is mp1.listen (or mp1:
// {listen: …}) in the file, MEP_MP1_LISTEN in the environment and --mp1-listen as a flag.
package settings

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/openmep/mep/api/problem"
	"github.com/openmep/mep/kit/bind"
)

// EnvPrefix starts the name of every environment variable.
const EnvPrefix = "MEP_"

// Setting describes one field of a configuration.
type Setting struct {
	// Path is the name in the file, such as "liveness.removeAfter".
	Path string
	// Flag is the name of the flag, without leading dashes.
	Flag string
	// Env is the name of the environment variable.
	Env string
	// Type is shown in the reference: string, bool, int, duration, list or YAML.
	Type string
	// Default is the default in textual form; DevDefault is the one in development mode, if it differs.
	Default, DevDefault string
	// Usage is one line without a full stop.
	Usage string
	// Reload says that the setting takes effect on SIGHUP.
	Reload bool
	// FileOnly says that the setting is structured and can be given only in the file.
	FileOnly bool

	field reflect.Value
}

// Of lists the settings of a configuration in the order of its fields, descending into nested structs of settings. cfg is a
// pointer to a struct.
func Of(cfg any) []Setting {
	var list []Setting
	walk(reflect.ValueOf(cfg).Elem(), &list)
	return list
}

func walk(v reflect.Value, list *[]Setting) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		path := f.Tag.Get("name")
		if path == "" {
			if f.Type.Kind() == reflect.Struct {
				walk(v.Field(i), list)
			}
			continue
		}
		flag := kebab(path)
		s := Setting{
			Path: path, Flag: flag, Env: EnvPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_")),
			Default: f.Tag.Get("default"), DevDefault: f.Tag.Get("dev"), Usage: f.Tag.Get("usage"),
			Reload: f.Tag.Get("reload") == "true", field: v.Field(i),
		}
		switch v.Field(i).Interface().(type) {
		case string:
			s.Type = "string"
		case bool:
			s.Type = "bool"
		case int, int64:
			s.Type = "int"
		case time.Duration:
			s.Type = "duration"
		case []string:
			s.Type = "list"
		default:
			s.Type, s.FileOnly = "YAML", true
		}
		*list = append(*list, s)
	}
}

// kebab turns "liveness.removeAfter" into "liveness-remove-after".
func kebab(path string) string {
	var b strings.Builder
	for i, r := range path {
		switch {
		case r == '.' || r == '_':
			b.WriteByte('-')
		case unicode.IsUpper(r):
			if i > 0 {
				b.WriteByte('-')
			}
			b.WriteRune(unicode.ToLower(r))
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// Sources are the sources of settings besides their defaults.
type Sources struct {
	// File is the path of a YAML file; empty means none.
	File string
	// Env looks up a variable; nil means no environment.
	Env func(string) (string, bool)
	// Flags holds the values of the flags that were given, by name.
	Flags map[string]string
}

// Load fills cfg, a pointer to a struct. After reading all sources it asks isDev whether development defaults apply to settings
// that no source set; isDev may be nil.
func Load(cfg any, src Sources, isDev func() bool) error {
	all := Of(cfg)
	set := make(map[string]bool)
	byFlag := make(map[string]*Setting, len(all))
	for i := range all {
		s := &all[i]
		byFlag[s.Flag] = s
		if s.Default != "" {
			if err := s.parse(s.Default); err != nil {
				return fmt.Errorf("default of %s: %w", s.Path, err)
			}
		}
	}
	if src.File != "" {
		data, err := os.ReadFile(src.File)
		if err != nil {
			return fmt.Errorf("read the configuration: %w", err)
		}
		f := file{name: src.File, byFlag: byFlag, set: set, vars: variables{env: src.Env, put: make(map[*yaml.Node]bool)}}
		if err := f.load(data); err != nil {
			return err
		}
	}
	for i := range all {
		s := &all[i]
		if s.FileOnly || src.Env == nil {
			continue
		}
		if v, ok := src.Env(s.Env); ok {
			if err := s.parse(v); err != nil {
				return fmt.Errorf("environment variable %s: %w", s.Env, err)
			}
			set[s.Flag] = true
		}
	}
	for name, v := range src.Flags {
		s, ok := byFlag[name]
		if !ok {
			continue
		}
		if err := s.parse(v); err != nil {
			return fmt.Errorf("flag --%s: %w", name, err)
		}
		set[name] = true
	}
	if isDev != nil && isDev() {
		for i := range all {
			s := &all[i]
			if s.DevDefault != "" && !set[s.Flag] {
				if err := s.parse(s.DevDefault); err != nil {
					return fmt.Errorf("development default of %s: %w", s.Path, err)
				}
			}
		}
	}
	return nil
}

// Flags adds a flag for every setting that can be given as one. Given returns those that were.
func Flags(fs *pflag.FlagSet, cfg any) {
	for _, s := range Of(cfg) {
		if s.FileOnly {
			continue
		}
		usage := s.Usage
		if s.DevDefault != "" {
			usage += " (with --dev: " + s.DevDefault + ")"
		}
		if s.Type == "bool" {
			fs.Bool(s.Flag, s.Default == "true", usage)
		} else {
			fs.String(s.Flag, s.Default, usage)
		}
	}
}

// Given returns the values of the flags of a parsed set that were given, by name.
func Given(fs *pflag.FlagSet) map[string]string {
	given := make(map[string]string)
	fs.Visit(func(f *pflag.Flag) { given[f.Name] = f.Value.String() })
	return given
}

// parse sets the value from its textual form, as found in the environment, a flag, or a scalar of the file.
func (s *Setting) parse(text string) error {
	switch s.field.Interface().(type) {
	case string:
		s.field.SetString(text)
	case bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("%q is not true or false", text)
		}
		s.field.SetBool(b)
	case time.Duration:
		d, err := time.ParseDuration(text)
		if err != nil || d < 0 {
			return fmt.Errorf("%q is not a duration such as 500ms, 30s or 1h", text)
		}
		s.field.SetInt(int64(d))
	case int, int64:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return fmt.Errorf("%q is not a whole number", text)
		}
		s.field.SetInt(n)
	case []string:
		var list []string
		for part := range strings.SplitSeq(text, ",") {
			list = append(list, strings.TrimSpace(part))
		}
		if text == "" {
			list = nil
		}
		s.field.Set(reflect.ValueOf(list))
	default:
		return fmt.Errorf("it has structure and can only be set in the configuration file")
	}
	return nil
}

// file is a configuration file that is being read.
type file struct {
	name   string
	byFlag map[string]*Setting
	set    map[string]bool // settings that have a value, by flag
	vars   variables
}

func (f *file) load(data []byte) error {
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return fmt.Errorf("%s: %w", f.name, err)
	}
	if len(doc.Content) == 0 {
		return nil
	}
	root := doc.Content[0]
	if root.Tag == "!!null" {
		return nil
	}
	if root.Kind != yaml.MappingNode {
		return fmt.Errorf("%s:%d: the file must hold settings as \"name: value\"", f.name, root.Line)
	}
	return f.mapping(root, "")
}

func (f *file) mapping(node *yaml.Node, prefix string) error {
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		path := key.Value
		if prefix != "" {
			path = prefix + "." + path
		}
		flag := kebab(path)
		s, known := f.byFlag[flag]
		switch {
		case !known && value.Kind == yaml.MappingNode && isGroup(flag, f.byFlag):
			if err := f.mapping(value, path); err != nil {
				return err
			}
			continue
		case !known:
			return fmt.Errorf("%s:%d: unknown setting %q%s", f.name, key.Line, path, suggest(flag, f.byFlag))
		case f.set[flag]:
			return fmt.Errorf("%s:%d: %s is set twice", f.name, key.Line, s.Path)
		}
		if err := f.vars.expand(value); err != nil {
			line := value.Line
			if at, ok := errors.AsType[*lineError](err); ok {
				line = at.line
			}
			return fmt.Errorf("%s:%d: %s: %w", f.name, line, s.Path, err)
		}
		if s.FileOnly {
			f.vars.typed(value, s.field.Type())
		}
		if err := s.decode(value); err != nil {
			return fmt.Errorf("%s:%d: %s: %w", f.name, value.Line, s.Path, err)
		}
		f.set[flag] = true
	}
	return nil
}

func isGroup(flag string, byFlag map[string]*Setting) bool {
	for f := range byFlag {
		if strings.HasPrefix(f, flag+"-") {
			return true
		}
	}
	return false
}

func (s *Setting) decode(node *yaml.Node) error {
	if s.FileOnly {
		return s.decodeStructured(node)
	}
	switch {
	case node.Kind == yaml.SequenceNode && s.Type == "list":
		list := make([]string, 0, len(node.Content))
		for _, e := range node.Content {
			if e.Kind != yaml.ScalarNode {
				return fmt.Errorf("must be a list of plain values")
			}
			list = append(list, e.Value)
		}
		s.field.Set(reflect.ValueOf(list))
		return nil
	case node.Kind != yaml.ScalarNode:
		return fmt.Errorf("must be a plain value of type %s", s.Type)
	case node.Tag == "!!null":
		return fmt.Errorf("has no value; leave the setting out to get its default")
	}
	return s.parse(node.Value)
}

// decodeStructured decodes a structured value exactly as it would be decoded from a request.
func (s *Setting) decodeStructured(node *yaml.Node) error {
	var v any
	if err := node.Decode(&v); err != nil {
		return err
	}
	data, err := json.Marshal(map[string]any{"value": v})
	if err != nil {
		return err
	}
	holder := reflect.New(reflect.StructOf([]reflect.StructField{{
		Name: "Value", Type: s.field.Type(), Tag: `json:"value"`,
	}}))
	var faults problem.InvalidParams
	if err := bind.JSON(data, holder.Interface(), &faults); err != nil {
		return err
	}
	if err := faults.Err(); err != nil {
		return err
	}
	// Unknown members, which a request may have, are mistakes in a configuration.
	strict := json.NewDecoder(bytes.NewReader(data))
	strict.DisallowUnknownFields()
	if err := strict.Decode(reflect.New(holder.Type().Elem()).Interface()); err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	s.field.Set(holder.Elem().Field(0))
	return nil
}

func suggest(flag string, byFlag map[string]*Setting) string {
	best, at := "", 4
	for f, s := range byFlag {
		if d := distance(flag, f); d < at || d == at && s.Path < best {
			best, at = s.Path, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// distance returns the number of single-character edits between a and b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			diagonal, row[j] = row[j], min(row[j]+1, row[j-1]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}

// Changed lists the settings in which two configurations of the same type differ.
func Changed(was, is any) []Setting {
	var list []Setting
	before, after := Of(was), Of(is)
	for i := range before {
		if !reflect.DeepEqual(before[i].field.Interface(), after[i].field.Interface()) {
			list = append(list, after[i])
		}
	}
	return list
}

// Copy copies every setting that can be reloaded from src to dst.
func Copy(dst, src any) {
	to, from := Of(dst), Of(src)
	for i := range to {
		if to[i].Reload {
			to[i].field.Set(from[i].field)
		}
	}
}
