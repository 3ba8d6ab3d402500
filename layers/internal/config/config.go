// Package config fills a configuration struct from a TOML file, the environment and flags, and says everything that
// is wrong with them at once, each fault with the place it came from.
//
// A field is configuration if it has a koanf tag, which is its key; a field that is a struct is a section. The tag
// doc is the help text, secret:"true" keeps the value out of every output. A field may be a string, bool, int, uint or
// float64 of any name, a time.Duration or a []string. Anything else, or two keys that share a variable's name, is a
// mistake in the program and panics.
package config

import (
	"fmt"
	"reflect"
	"strings"
)

// EnvPrefix begins the name of every variable that Load reads.
const EnvPrefix = "GOCHAT_"

// FileSuffix ends the name of a variable whose value is a path: the file holds what the variable without the suffix
// would, as secrets of containers do. Line ends after it are none of it.
const FileSuffix = "_FILE"

// Key is one setting.
type Key struct {
	Name    string // dotted: auth.argon2.memory_kib
	Env     string // GOCHAT_AUTH_ARGON2_MEMORY_KIB
	Type    string // text, true or false, whole number, number, duration, or list
	Default string // as it would be typed; "••••" for a secret that is set
	Doc     string
	Secret  bool
}

// Keys lists every setting of T in the order of its fields.
func Keys[T any](defaults T) []Key {
	var keys []Key
	for _, f := range fieldsOf(reflect.ValueOf(&defaults).Elem(), "") {
		keys = append(keys, Key{
			Name: f.key, Env: envName(f.key), Type: f.kind.name, Default: f.text(f.value.Interface()), Doc: f.doc, Secret: f.secret,
		})
	}
	return keys
}

// Redacted is cfg by its dotted keys, for people to read: secrets are "••••" where they are set, and so is what
// stands before the host of a URL, or after password= and the like.
func Redacted[T any](cfg T) map[string]any {
	shown := map[string]any{}
	for _, f := range fieldsOf(reflect.ValueOf(&cfg).Elem(), "") {
		shown[f.key] = f.shown()
	}
	return shown
}

// field is one setting in one struct.
type field struct {
	key    string
	doc    string
	secret bool
	kind   kind
	value  reflect.Value // settable
}

// fieldsOf walks v, which is settable, in the order of its fields.
func fieldsOf(v reflect.Value, prefix string) []field {
	fields := walk(v, prefix)
	owner := map[string]string{}
	for _, f := range fields {
		env := envName(f.key)
		if other, taken := owner[env]; taken {
			panic(fmt.Sprintf("config: %s and %s are both %s", other, f.key, env))
		}
		owner[env] = f.key
	}
	return fields
}

func walk(v reflect.Value, prefix string) []field {
	var fields []field
	for i := range v.NumField() {
		sf := v.Type().Field(i)
		name := sf.Tag.Get("koanf")
		if sf.Anonymous && name == "" && sf.IsExported() && sf.Type.Kind() == reflect.Struct {
			fields = append(fields, walk(v.Field(i), prefix)...) // its settings are the section's own
			continue
		}
		if name == "" || name == "-" {
			continue
		}
		key := prefix + name
		if !sf.IsExported() {
			panic(fmt.Sprintf("config: %s: the field is not exported", key))
		}
		if sf.Type.Kind() == reflect.Struct {
			fields = append(fields, walk(v.Field(i), key+".")...)
			continue
		}
		k, ok := kindOf(sf.Type)
		if !ok {
			panic(fmt.Sprintf("config: %s: a %s cannot be configured", key, sf.Type))
		}
		fields = append(fields, field{key: key, doc: sf.Tag.Get("doc"), secret: sf.Tag.Get("secret") == "true", kind: k, value: v.Field(i)})
	}
	return fields
}

func envName(key string) string {
	return EnvPrefix + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(key))
}
