package terminal

import (
	"testing"

	"gochat/layers/internal/contract"
)

func TestPeople(t *testing.T) {
	type names = map[contract.UserID]string
	for name, test := range map[string]struct {
		before, now roomInfo
		want        string
	}{
		"nothing new":   {roomInfo{Count: 1, Users: names{1: "ann"}}, roomInfo{Count: 1, Users: names{1: "ann"}}, ""},
		"one came":      {roomInfo{Count: 1, Users: names{1: "ann"}}, roomInfo{Count: 2, Users: names{1: "ann", 2: "bob"}}, "bob came (2 online)"},
		"one left":      {roomInfo{Count: 2, Users: names{1: "ann", 2: "bob"}}, roomInfo{Count: 1, Users: names{1: "ann"}}, "bob left (1 online)"},
		"one for other": {roomInfo{Count: 1, Users: names{1: "ann"}}, roomInfo{Count: 1, Users: names{2: "bob"}}, "bob came, ann left (1 online)"},
		"not all named": {roomInfo{Count: 300, Users: names{1: "ann"}}, roomInfo{Count: 301, Users: names{2: "bob"}}, "301 online"},
		"same count":    {roomInfo{Count: 300, Users: names{1: "ann"}}, roomInfo{Count: 300, Users: names{2: "bob"}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var p people
			if first := p.changed(test.before); first == "" {
				t.Error("the first says nothing")
			}
			if got := p.changed(test.now); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
	var p people
	if got, want := p.changed(roomInfo{Count: 250, Users: names{2: "bob", 1: "ann"}}), "online: ann, bob, and 248 others"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
