package bench

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
)

// Compare prints what two reports have measured, and by how much the second differs. A number that only one has is
// printed with a dash for the other.
func Compare(pathA, pathB string, w io.Writer) error {
	a, err := load(pathA)
	if err != nil {
		return err
	}
	b, err := load(pathB)
	if err != nil {
		return err
	}
	return compare(a, b, w)
}

func compare(a, b *Report, w io.Writer) error {
	type key struct{ group, name string }
	type pair struct {
		metric
		a, b *float64
	}
	var order []key
	pairs := make(map[key]*pair)
	enter := func(r *Report, set func(*pair, *float64)) {
		for _, m := range r.metrics() {
			k := key{m.group, m.name}
			if pairs[k] == nil {
				pairs[k] = &pair{metric: m}
				order = append(order, k)
			}
			set(pairs[k], &m.value)
		}
	}
	enter(a, func(p *pair, v *float64) { p.a = v })
	enter(b, func(p *pair, v *float64) { p.b = v })

	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "\tA\tB\tB/A\n")
	fmt.Fprintf(t, "scenario\t%s\t%s\t\n", a.title(), b.title())
	loads := maps.Clone(a.Load)
	maps.Copy(loads, b.Load)
	for _, name := range slices.Sorted(maps.Keys(loads)) {
		fmt.Fprintf(t, "  %s\t%s\t%s\t\n", name, loadCell(a, name), loadCell(b, name))
	}
	fmt.Fprintf(t, "  faults\t%d\t%d\t\n", len(a.Faults), len(b.Faults))
	groups := make(map[string]bool)
	var names []string
	for _, k := range order {
		if !groups[k.group] {
			groups[k.group] = true
			names = append(names, k.group)
		}
	}
	for _, group := range names {
		fmt.Fprintf(t, "%s\t\t\t\n", group)
		for _, k := range order {
			if k.group != group {
				continue
			}
			p := pairs[k]
			fmt.Fprintf(t, "  %s\t%s\t%s\t%s\n", p.name, cell(p.a, p.unit), cell(p.b, p.unit), ratio(p.a, p.b))
		}
	}
	return t.Flush()
}

// loadCell is one option of a report that has been JSON: its numbers are float64.
func loadCell(r *Report, name string) string {
	v, there := r.Load[name]
	if number, is := v.(float64); is {
		return amount(number, "")
	} else if !there {
		return "-"
	}
	return fmt.Sprint(v)
}

func cell(v *float64, unit string) string {
	if v == nil {
		return "-"
	}
	return amount(*v, unit)
}

func ratio(a, b *float64) string {
	switch {
	case a == nil || b == nil:
		return "-"
	case *a == *b:
		return "1.00"
	case *a == 0:
		return "-"
	}
	return fmt.Sprintf("%.2f", *b / *a)
}
