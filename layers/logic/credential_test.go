package logic

import (
	"reflect"
	"testing"

	"gochat/layers/internal/contract"
)

// Whatever the contract has that takes a credential refuses one that is not a session's, and says nothing else.
func TestCredentialIsAsked(t *testing.T) {
	l := newHouse(t).running(t)
	own := contract.SessionOf(register(t, l, "ann").Token)
	wrong := map[string]contract.Credential{
		"none": {}, "nobody's token": {Token: "nobody's"}, "nobody's session": {Session: "nobody's"},
		"the session of another token": {Token: "nobody's", Session: own},
	}
	asked := 0
	calls := reflect.TypeFor[contract.Logic]()
	for i := range calls.NumMethod() {
		method := calls.Method(i)
		if _, takes := method.Type.In(1).Elem().FieldByName("Credential"); !takes {
			continue
		}
		asked++
		for name, credential := range wrong {
			t.Run(method.Name+", "+name, func(t *testing.T) {
				request := reflect.New(method.Type.In(1).Elem())
				request.Elem().FieldByName("Credential").Set(reflect.ValueOf(credential))
				answer := reflect.ValueOf(l).MethodByName(method.Name).Call([]reflect.Value{reflect.ValueOf(t.Context()), request})
				err, _ := answer[1].Interface().(error)
				wantCode(t, err, contract.Unauthenticated)
				if !answer[0].IsNil() {
					t.Errorf("answered %+v all the same", answer[0])
				}
			})
		}
	}
	if asked < 15 {
		t.Errorf("%d calls with a credential only: this test shows less than it should", asked)
	}
}
