package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/knadh/koanf/parsers/toml/v2"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"
	gotoml "github.com/pelletier/go-toml/v2"
)

// Sources are where settings come from; a later one wins over an earlier one.
type Sources struct {
	File    string          // a TOML file; "" is none
	Environ []string        // NAME=value, as os.Environ has it; a name that begins with EnvPrefix must be a setting's, or that and FileSuffix
	Flags   map[string]Flag // by dotted key
}

// Flag is one setting as typed on the command line.
type Flag struct {
	Name  string // what was typed: "--set api.listen", or "--api-port" for a flag that stands for the key
	Value string
}

// Load changes *into as the sources say. What it already holds are the defaults.
//
// Then T and every section of it that has the method Validate() error is asked; T need not ask its sections. An error
// that Invalid made, or one whose text begins with a key of the section, is reported with the full key and the place
// its value came from; any other with the section's name. Several may be joined.
//
// The error joins everything that is wrong, sorted by place, one line each, without secrets. *into is unchanged then.
func Load[T any](into *T, from Sources) error {
	next := *into
	l := loader{fields: map[string]field{}, sections: map[string]bool{}, origins: map[string]origin{}}
	for _, f := range fieldsOf(reflect.ValueOf(&next).Elem(), "") {
		l.fields[f.key] = f
		for section, more := parent(f.key); more; section, more = parent(section) {
			l.sections[section] = true
		}
	}
	l.readFile(from.File)
	l.readEnviron(from.Environ)
	l.readFlags(from.Flags)
	l.validate(reflect.ValueOf(&next).Elem(), "")
	if err := l.err(); err != nil {
		return err
	}
	*into = next
	return nil
}

// ValueError says that a value cannot be used. Load knows where the value came from.
type ValueError struct {
	Key   string // within the section whose Validate returns it
	Value any
	Want  string // "a power of two"
}

func (e *ValueError) Error() string { return fmt.Sprintf("%s = %v: want %s", e.Key, e.Value, e.Want) }

// Invalid is a ValueError for Validate to return.
func Invalid(key string, value any, want string) error {
	return &ValueError{Key: key, Value: value, Want: want}
}

// origin is the place a value came from; the zero value is the default.
type origin struct {
	source string // a path, a variable or a flag
	line   int    // 0 if there is none
}

type problem struct {
	origin
	text string
}

func (p problem) Error() string {
	switch {
	case p.line > 0:
		return fmt.Sprintf("%s:%d: %s", p.source, p.line, p.text)
	case p.source != "":
		return p.source + ": " + p.text
	}
	return p.text
}

type loader struct {
	fields   map[string]field
	sections map[string]bool
	origins  map[string]origin // of the keys that are no longer at their default
	problems []problem
}

func (l *loader) report(o origin, format string, args ...any) {
	l.problems = append(l.problems, problem{o, fmt.Sprintf(format, args...)})
}

func (l *loader) err() error {
	slices.SortFunc(l.problems, func(a, b problem) int {
		return cmp.Or(strings.Compare(a.source, b.source), cmp.Compare(a.line, b.line), strings.Compare(a.text, b.text))
	})
	errs := make([]error, len(l.problems))
	for i, p := range l.problems {
		errs[i] = p
	}
	return errors.Join(errs...)
}

func (l *loader) readFile(path string) {
	if path == "" {
		return
	}
	content, ok := l.content(path, origin{source: path})
	if !ok {
		return
	}
	tree, err := toml.Parser().Unmarshal(content)
	if err != nil {
		o := origin{source: path}
		if decodeErr := (*gotoml.DecodeError)(nil); errors.As(err, &decodeErr) {
			o.line, _ = decodeErr.Position()
		}
		l.report(o, "%v", err)
		return
	}
	lines := keyLines(content)
	k := koanf.New(".")
	if err := k.Load(confmap.Provider(tree, ""), nil); err != nil {
		l.report(origin{source: path}, "%v", err)
		return
	}
	for key, value := range k.All() {
		o := origin{path, lines[key]}
		_, table := value.(map[string]any) // only an empty one is left whole
		f, known := l.fields[key]
		switch {
		case known:
			l.set(f, value, value, o)
		case l.sections[key] && !table:
			l.report(o, "%s is a section, not a value", key)
		case !l.sections[key]:
			l.report(o, "unknown key %s%s", key, l.hint(key, ""))
		}
	}
}

// content is the file's, false if it cannot be read, which is reported then.
func (l *loader) content(path string, o origin) ([]byte, bool) {
	content, err := file.Provider(path).ReadBytes()
	if pathErr := (*fs.PathError)(nil); errors.As(err, &pathErr) && path == o.source {
		err = pathErr.Err // the path is said already
	}
	if err != nil {
		l.report(o, "read: %v", err)
	}
	return content, err == nil
}

func (l *loader) readEnviron(environ []string) {
	k := koanf.New(".")
	// Without a delimiter: names are looked up whole, since an underscore may stand for a dot, a dash or itself.
	err := k.Load(env.Provider("", env.Opt{Prefix: EnvPrefix, EnvironFunc: func() []string { return environ }}), nil)
	if err != nil {
		l.report(origin{source: "environment"}, "%v", err)
		return
	}
	byName := make(map[string]field, len(l.fields))
	for key, f := range l.fields {
		byName[envName(key)] = f
	}
	for _, name := range k.Keys() {
		if f, known := byName[name]; known {
			l.setTyped(f, k.String(name), origin{source: name})
			continue
		}
		of, names := strings.CutSuffix(name, FileSuffix)
		if f, known := byName[of]; names && known {
			switch content, ok := l.content(k.String(name), origin{source: name}); {
			case k.Exists(of):
				l.report(origin{source: name}, "%s is set as well", of)
			case ok:
				l.setTyped(f, strings.TrimRight(string(content), "\r\n"), origin{source: name})
			}
			continue
		}
		l.report(origin{source: name}, "unknown variable%s", l.hint(of, EnvPrefix))
	}
}

func (l *loader) readFlags(flags map[string]Flag) {
	for key, flag := range flags {
		o := origin{source: flag.Name}
		if f, known := l.fields[key]; known {
			l.setTyped(f, flag.Value, o)
			continue
		}
		l.report(o, "unknown key%s", l.hint(key, ""))
	}
}

func (l *loader) setTyped(f field, typed string, o origin) {
	value, ok := f.kind.read(typed)
	if !ok {
		value = nil // which no field can be set to
	}
	l.set(f, value, typed, o)
}

// set leaves the field as it is if the value is none for it; given is the value as it was given.
func (l *loader) set(f field, value, given any, o origin) {
	if f.kind.set(f.value, value) {
		l.origins[f.key] = o
		return
	}
	l.report(o, "%s = %s: want %s", f.key, f.quoted(given), f.kind.want)
}

func (l *loader) validate(v reflect.Value, section string) {
	if c, ok := v.Addr().Interface().(interface{ Validate() error }); ok {
		l.invalid(section, c.Validate())
	}
	for i := range v.NumField() {
		sf := v.Type().Field(i)
		if name := sf.Tag.Get("koanf"); name != "" && name != "-" && sf.Type.Kind() == reflect.Struct {
			l.validate(v.Field(i), join(section, name))
		}
	}
}

func (l *loader) invalid(section string, err error) {
	if err == nil {
		return
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			l.invalid(section, e)
		}
		return
	}
	text := err.Error()
	word, _, _ := strings.Cut(text, " ")
	key := join(section, strings.TrimSuffix(word, ":"))
	if invalid, ok := err.(*ValueError); ok {
		key = join(section, invalid.Key)
		text = fmt.Sprintf("%s = %s: want %s", invalid.Key, l.fields[key].quoted(invalid.Value), invalid.Want)
	}
	switch _, known := l.fields[key]; {
	case known:
		l.report(cmp.Or(l.origins[key], origin{source: "default"}), "%s", join(section, text))
	case section != "":
		l.report(origin{}, "%s: %s", section, text)
	default:
		l.report(origin{}, "%s", text)
	}
}

// hint is how to go on after a name that is not a setting's, in the form of its source: "; did you mean …?", or what
// the section has.
func (l *loader) hint(name, prefix string) string {
	keys := slices.Sorted(maps.Keys(l.fields))
	key := strings.TrimPrefix(name, prefix)
	if prefix == EnvPrefix {
		key = strings.ReplaceAll(strings.ToLower(key), "_", ".")
	}
	spell := func(key string) string {
		if prefix == EnvPrefix {
			return envName(key)
		}
		return prefix + key
	}
	best, least := "", 3 // more than two slips are another word
	for _, k := range keys {
		if d := distance(strings.ToLower(strings.TrimPrefix(spell(k), prefix)), strings.ToLower(strings.TrimPrefix(name, prefix))); d < least {
			best, least = k, d
		}
	}
	if best != "" {
		return "; did you mean " + spell(best) + "?"
	}
	section, more := key, true
	for ; more; section, more = parent(section) {
		if f, leaf := l.fields[section]; leaf {
			return fmt.Sprintf("; %s is a %s, not a section", section, f.kind.name)
		}
		if l.sections[section] {
			return "; " + section + " has " + strings.Join(within(keys, section+"."), ", ")
		}
	}
	return "; there are " + strings.Join(within(keys, ""), ", ")
}

// within is what keys have after the prefix; after none, the first word of each.
func within(keys []string, prefix string) []string {
	var names []string
	for _, k := range keys {
		name, found := strings.CutPrefix(k, prefix)
		if prefix == "" {
			name, _, _ = strings.Cut(k, ".")
		}
		if found {
			names = append(names, name)
		}
	}
	return slices.Compact(names)
}

// parent is the section that a key or a section is in; false if it is in none.
func parent(key string) (string, bool) {
	i := strings.LastIndexByte(key, '.')
	if i < 0 {
		return "", false
	}
	return key[:i], true
}

func join(section, key string) string {
	if section == "" {
		return key
	}
	return section + "." + key
}

// distance is how many letters must be added, taken or changed to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
