package config

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// kind is what a field may hold.
type kind struct {
	name string
	want string                        // what a wrong value should have been
	set  func(reflect.Value, any) bool // a value as TOML has it; false if it is none
	read func(string) (v any, ok bool) // a value as typed, into what set takes
}

func kindOf(t reflect.Type) (kind, bool) {
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return kind{"duration", "a duration such as 5s or 1m30s", setDuration, asTyped}, true
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.String:
		return kind{"list", "a list of texts", setList, readList}, true
	}
	switch t.Kind() {
	case reflect.String:
		return kind{"text", "text", setString, asTyped}, true
	case reflect.Bool:
		return kind{"true or false", "true or false", setBool, readBool}, true
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		low := int64(-1) << (t.Bits() - 1)
		return kind{"whole number", fmt.Sprintf("a whole number from %d to %d", low, -(low + 1)), setInt, readInt}, true
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		// TOML has no integer above the highest int64.
		high := min(^uint64(0)>>(64-t.Bits()), 1<<63-1)
		return kind{"whole number", fmt.Sprintf("a whole number from 0 to %d", high), setUint, readInt}, true
	case reflect.Float64:
		return kind{"number", "a number", setFloat, readFloat}, true
	}
	return kind{}, false
}

func asTyped(s string) (any, bool) { return s, true }

func setString(v reflect.Value, raw any) bool {
	s, ok := raw.(string)
	if ok {
		v.SetString(s)
	}
	return ok
}

func setBool(v reflect.Value, raw any) bool {
	b, ok := raw.(bool)
	if ok {
		v.SetBool(b)
	}
	return ok
}

func readBool(s string) (any, bool) { return s == "true", s == "true" || s == "false" }

func setInt(v reflect.Value, raw any) bool {
	n, ok := raw.(int64)
	ok = ok && !v.OverflowInt(n)
	if ok {
		v.SetInt(n)
	}
	return ok
}

func setUint(v reflect.Value, raw any) bool {
	n, ok := raw.(int64)
	ok = ok && n >= 0 && !v.OverflowUint(uint64(n))
	if ok {
		v.SetUint(uint64(n))
	}
	return ok
}

func readInt(s string) (any, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

func setFloat(v reflect.Value, raw any) bool {
	f, ok := raw.(float64)
	if n, whole := raw.(int64); whole {
		f, ok = float64(n), true
	}
	ok = ok && f-f == 0 // neither infinite nor not a number: no setting means that
	if ok {
		v.SetFloat(f)
	}
	return ok
}

func readFloat(s string) (any, bool) {
	f, err := strconv.ParseFloat(s, 64)
	return f, err == nil
}

func setDuration(v reflect.Value, raw any) bool {
	s, _ := raw.(string)
	d, err := time.ParseDuration(s)
	if err == nil {
		v.SetInt(int64(d))
	}
	return err == nil
}

// setList makes a new slice: the default's array may be shared.
func setList(v reflect.Value, raw any) bool {
	items, ok := raw.([]any)
	if !ok {
		return false
	}
	list := reflect.MakeSlice(v.Type(), len(items), len(items))
	for i, item := range items {
		if !setString(list.Index(i), item) {
			return false
		}
	}
	v.Set(list)
	return true
}

// readList reads "a, b"; "" is no item, and an empty item is a slip.
func readList(s string) (any, bool) {
	items := []any{}
	if strings.TrimSpace(s) == "" {
		return items, true
	}
	for item := range strings.SplitSeq(s, ",") {
		item = strings.TrimSpace(item)
		if item == "" {
			return nil, false
		}
		items = append(items, item)
	}
	return items, true
}
