package terminal

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"gochat/layers/internal/contract"
)

// maxNamed is how many people are named in one line.
const maxNamed = 20

// people are those who are in the room, as it was told last.
type people struct {
	known bool
	count int
	names map[contract.UserID]string
}

// changed takes over who is there now and says what is new in it, "" if nothing is.
func (p *people) changed(info roomInfo) string {
	before := *p
	*p = people{known: true, count: info.Count, names: info.Users}
	whole := func(p *people) bool { return p.count == len(p.names) }
	switch {
	case !before.known:
		return fmt.Sprintf("online: %s", listed(p.count, p.names))
	case !whole(&before) || !whole(p): // who is missing in a part of the names says nothing
		if before.count == p.count {
			return ""
		}
		return fmt.Sprintf("%d online", p.count)
	}
	var news []string
	if came := minus(p.names, before.names); len(came) > 0 {
		news = append(news, listed(len(came), came)+" came")
	}
	if left := minus(before.names, p.names); len(left) > 0 {
		news = append(news, listed(len(left), left)+" left")
	}
	if len(news) == 0 {
		return ""
	}
	return fmt.Sprintf("%s (%d online)", strings.Join(news, ", "), p.count)
}

// minus are those of a who are not in b.
func minus(a, b map[contract.UserID]string) map[contract.UserID]string {
	rest := maps.Clone(a)
	maps.DeleteFunc(rest, func(id contract.UserID, _ string) bool { _, ok := b[id]; return ok })
	return rest
}

// listed names people in alphabetical order, and says how many of them it does not name.
func listed(count int, names map[contract.UserID]string) string {
	list := slices.Sorted(maps.Values(names))
	list = list[:min(len(list), maxNamed)]
	if others := count - len(list); others > 0 {
		list = append(list, fmt.Sprintf("and %d others", others))
	}
	return strings.Join(list, ", ")
}
