package config

import (
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"
)

// masked stands for a secret that is set.
const masked = "••••"

var (
	// Up to the last @, since a password may hold one that should have been escaped. Hiding too much is harmless.
	userinfo = regexp.MustCompile(`(?is)^([a-z0-9+.-]*://)?.*@`)
	// In the query of a URL, or in a "user=gochat password=…" connection string.
	parameter = regexp.MustCompile(`(?i)((?:password|passwd|pwd|secret|token)\s*=)\s*('[^']*'|[^&\s]*)`)
)

// redact hides the secrets of a text that is itself none, such as the URL of a database.
func redact(s string) string {
	return parameter.ReplaceAllString(userinfo.ReplaceAllString(s, "${1}"+masked+"@"), "${1}"+masked)
}

// text is a value of the field, or one that was tried, in the form it would be typed in, without secrets.
func (f field) text(value any) string {
	if f.secret {
		return mask(value)
	}
	v := reflect.ValueOf(value)
	switch v.Kind() {
	case reflect.Slice:
		items := make([]string, v.Len())
		for i := range items {
			items[i] = field{}.text(v.Index(i).Interface())
		}
		return strings.Join(items, ",")
	case reflect.Map: // a table in place of a value: what it holds may be anything
		return "{…}"
	}
	return redact(fmt.Sprint(value))
}

// shown keeps numbers, booleans and lists what they are, for JSON.
func (f field) shown() any {
	switch {
	case f.secret:
		return mask(f.value.Interface())
	case f.kind.name == "list":
		items := make([]string, f.value.Len())
		for i := range items {
			items[i] = redact(f.value.Index(i).String())
		}
		return items
	case f.kind.name == "text", f.kind.name == "duration":
		return f.text(f.value.Interface())
	}
	return f.value.Interface()
}

func mask(value any) string {
	if v := reflect.ValueOf(value); v.IsZero() || v.Kind() == reflect.Slice && v.Len() == 0 {
		return ""
	}
	return masked
}

// quoted is a value that is at fault, without secrets.
func (f field) quoted(value any) string {
	switch {
	case f.secret:
		return masked
	case reflect.ValueOf(value).Kind() == reflect.String:
		return strconv.Quote(f.text(value))
	}
	return f.text(value)
}
