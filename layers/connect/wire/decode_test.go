package wire

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"gochat/layers/internal/contract"
)

type marks = map[contract.Conversation]int64

func TestDecode(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     Request
	}{
		{"the seed's first message", `{"authToken":"t","roomId":1}`, Request{Op: OpAuth, AuthToken: "t", Room: 1}},
		{"the seed's tcp auth", `{"op":6,"authToken":"t","roomId":1,"msg":"","fromUserId":0,"createTime":""}`,
			Request{Op: OpAuth, AuthToken: "t", Room: 1}},
		{"the seed's room send", `{"op":3,"authToken":"t","roomId":1,"msg":"hi","fromUserId":9,"fromUserName":"x","toUserId":"7"}`,
			Request{Op: OpRoom, AuthToken: "t", Room: 1, Text: "hi"}},
		{"op null", `{"op":null,"authToken":"t"}`, Request{Op: OpAuth, AuthToken: "t"}},
		{"auth only", `{"op":6,"authToken":"t"}`, Request{Op: OpAuth, AuthToken: "t"}},
		{"auth, device", `{"op":6,"authToken":"t","device":"phone"}`, Request{Op: OpAuth, AuthToken: "t", Device: "phone"}},
		{"auth, resume unread", `{"op":6,"authToken":"t","resume":{}}`, Request{Op: OpAuth, AuthToken: "t", Resume: marks{}}},
		{"auth, resume null", `{"op":6,"authToken":"t","resume":null}`, Request{Op: OpAuth, AuthToken: "t"}},
		{"auth, resume", `{"op":6,"authToken":"t","resume":{"room:1": 120, "dm:3:7" :8}}`,
			Request{Op: OpAuth, AuthToken: "t", Resume: marks{"room:1": 120, "dm:3:7": 8}}},
		{"resume without op", `{"authToken":"t","resume":{"room:1":0}}`, Request{Op: OpAuth, AuthToken: "t", Resume: marks{"room:1": 0}}},
		{"private", `{"op":2,"toUserId":7,"msg":"hi","clientId":"c"}`, Request{Op: OpDirect, To: 7, Text: "hi", ClientID: "c"}},
		{"private, from a room", `{"op":2,"toUserId":7,"roomId":4,"msg":"hi"}`, Request{Op: OpDirect, To: 7, Room: 4, Text: "hi"}},
		{"traced", `{"op":3,"roomId":1,"msg":"hi","traceparent":"` + testTraceparent + `"}`,
			Request{Op: OpRoom, Room: 1, Text: "hi", Traceparent: testTraceparent}},
		{"trace of another type", `{"op":10,"traceparent":{"a":1}}`, Request{Op: OpPing}},
		{"escapes", `{"op":3,"roomId":1,"msg":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00"}`,
			Request{Op: OpRoom, Room: 1, Text: "\"\\/\b\f\n\r\t\u00e9\U0001F600"}},
		{"half a surrogate", `{"op":3,"roomId":1,"msg":"a\ud83d"}`, Request{Op: OpRoom, Room: 1, Text: "a\uFFFD"}},
		{"structure in strings", `{"op":3,"roomId":1,"msg":"}],\":{[\\","x":"\\\","}`, Request{Op: OpRoom, Room: 1, Text: `}],":{[\`}},
		{"space", " {\t\"op\" :\r\n 15 , \"roomId\"\n:2 } \n", Request{Op: OpEnter, Room: 2}},
		{"name escaped", `{"\u006fp":16,"roomId":2}`, Request{Op: OpLeave, Room: 2}},
		{"name in another case is another name", `{"op":15,"roomId":2,"roomID":"x","Op":[]}`, Request{Op: OpEnter, Room: 2}},
		{"unknown fields of any type", `{"fromUserId":{"op":4,"a":[1,{}]},"op":10,"x":[[],"]"],"roomId":"?","msg":7,"have":{}}`,
			Request{Op: OpPing, Have: marks{}}},
		{"unknown field twice", `{"op":10,"x":1,"x":2}`, Request{Op: OpPing}},
		{"ping", `{"op":10}`, Request{Op: OpPing}},
		{"ping, have", `{"op":10,"have":{"dm:3:7":8}}`, Request{Op: OpPing, Have: marks{"dm:3:7": 8}}},
		{"pong", `{"op":11}`, Request{Op: OpPong}},
		{"replay", `{"op":12,"resume":{"room:1":120}}`, Request{Op: OpReplay, Resume: marks{"room:1": 120}}},
		{"read", `{"op":13,"conversation":"room:1","seq":130}`, Request{Op: OpRead, Conversation: "room:1", Seq: 130}},
		{"read nothing", `{"op":13,"conversation":"room:1","seq":0}`, Request{Op: OpRead, Conversation: "room:1"}},
		{"typing", `{"op":14,"conversation":"dm:3:7"}`, Request{Op: OpTyping, Conversation: "dm:3:7"}},
		{"client id where it has no use", `{"op":15,"roomId":2,"clientId":"c"}`, Request{Op: OpEnter, Room: 2, ClientID: "c"}},
		{"client id where it has no use and no form", `{"op":15,"roomId":2,"clientId":7}`, Request{Op: OpEnter, Room: 2}},
		{"longest client id", `{"op":3,"roomId":1,"msg":"hi","clientId":"` + strings.Repeat("c", contract.MaxClientIDBytes) + `"}`,
			Request{Op: OpRoom, Room: 1, Text: "hi", ClientID: strings.Repeat("c", contract.MaxClientIDBytes)}},
		{"most conversations", `{"op":12,"resume":{` + manyMarks(contract.MaxResume) + `}}`, Request{Op: OpReplay, Resume: marksUpTo(contract.MaxResume)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Decode([]byte(c.in))
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %+v, %v\nwant %+v", got, err, c.want)
			}
		})
	}
}

func manyMarks(n int) string {
	var s strings.Builder
	for i := range n {
		fmt.Fprintf(&s, `%s"room:%d":%d`, comma(i), i+1, i)
	}
	return s.String()
}

func marksUpTo(n int) marks {
	m := marks{}
	for i := range n {
		m[contract.RoomConversation(contract.RoomID(i+1))] = int64(i)
	}
	return m
}

func TestDecodeRefuses(t *testing.T) {
	const bad, large = contract.BadRequest, contract.TooLarge
	for _, c := range []struct {
		name, in string
		want     contract.Code
		clientID string
	}{
		{"nothing", "", bad, ""},
		{"the seed's ping payload", "ping msg", bad, ""},
		{"cut", `{"op":10`, bad, ""},
		{"trailing data", `{"op":10}{"op":10}`, bad, ""},
		{"trailing comma", `{"op":10,}`, bad, ""},
		{"array", `[{"op":10}]`, bad, ""},
		{"string", `"op"`, bad, ""},
		{"null", `null`, bad, ""},
		{"not UTF-8", "{\"op\":3,\"roomId\":1,\"msg\":\"\xff\"}", bad, ""},
		{"not UTF-8 in a field unknown", "{\"op\":10,\"x\":\"\xff\"}", bad, ""},
		{"too deep", `{"op":10,"x":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`, bad, ""},
		{"empty object", `{}`, bad, ""},
		{"op a string", `{"op":"3","roomId":1,"msg":"hi","clientId":"c"}`, bad, "c"},
		{"op a fraction", `{"op":3.0,"roomId":1,"msg":"hi"}`, bad, ""},
		{"op unknown", `{"op":99,"clientId":"c"}`, bad, "c"},
		{"op 0", `{"op":0,"authToken":"t"}`, bad, ""},
		{"op negative", `{"op":-3,"roomId":1,"msg":"hi"}`, bad, ""},
		{"op beyond int64", `{"op":18446744073709551622,"authToken":"t"}`, bad, ""},
		{"op twice", `{"op":3,"roomId":1,"msg":"hi","op":10,"clientId":"c"}`, bad, "c"},
		{"msg twice, once escaped", `{"op":3,"roomId":1,"msg":"hi","\u006dsg":"ho"}`, bad, ""},
		{"server's op 4", `{"op":4}`, bad, ""},
		{"server's op 5", `{"op":5}`, bad, ""},
		{"server's op 20", `{"op":20}`, bad, ""},
		{"server's op 21", `{"op":21}`, bad, ""},
		{"server's op 22", `{"op":22}`, bad, ""},
		{"server's op 23", `{"op":23}`, bad, ""},
		{"auth without token", `{"op":6,"roomId":1}`, bad, ""},
		{"auth with empty token", `{"authToken":"","roomId":1}`, bad, ""},
		{"token a number", `{"authToken":7}`, bad, ""},
		{"token a number, in a ping", `{"op":10,"authToken":7}`, bad, ""},
		{"room negative", `{"authToken":"t","roomId":-1}`, bad, ""},
		{"room a string", `{"authToken":"t","roomId":"1"}`, bad, ""},
		{"room beyond int64", `{"authToken":"t","roomId":9223372036854775808}`, bad, ""},
		{"device a number", `{"authToken":"t","device":1}`, bad, ""},
		{"device too long", `{"authToken":"t","device":"` + strings.Repeat("d", contract.MaxDeviceBytes+1) + `"}`, large, ""},
		{"send without room", `{"op":3,"msg":"hi","clientId":"c"}`, bad, "c"},
		{"send to room 0", `{"op":3,"roomId":0,"msg":"hi"}`, bad, ""},
		{"send without text", `{"op":3,"roomId":1}`, bad, ""},
		{"send empty text", `{"op":3,"roomId":1,"msg":""}`, bad, ""},
		{"send null", `{"op":3,"roomId":1,"msg":null}`, bad, ""},
		{"send a number", `{"op":3,"roomId":1,"msg":7}`, bad, ""},
		{"send a NUL", `{"op":3,"roomId":1,"msg":"a\u0000b","clientId":"c"}`, bad, "c"},
		{"send too much", `{"op":3,"roomId":1,"msg":"` + strings.Repeat("a", contract.MaxTextBytes+1) + `","clientId":"c"}`, large, "c"},
		{"send too much once escaped", `{"op":3,"roomId":1,"msg":"` + strings.Repeat(`\n`, MaxEncodedText/2+1) + `"}`, large, ""},
		{"send, client id a number", `{"op":3,"roomId":1,"msg":"hi","clientId":7}`, bad, ""},
		{"send, client id with a NUL", `{"op":3,"roomId":1,"msg":"hi","clientId":"\u0000"}`, bad, ""},
		{"send, client id too long", `{"op":3,"roomId":1,"msg":"hi","clientId":"` + strings.Repeat("c", contract.MaxClientIDBytes+1) + `"}`, large, ""},
		{"private without addressee", `{"op":2,"msg":"hi","clientId":"c"}`, bad, "c"},
		{"private to nobody", `{"op":2,"toUserId":0,"msg":"hi"}`, bad, ""},
		{"private to a negative", `{"op":2,"toUserId":-7,"msg":"hi"}`, bad, ""},
		{"private to a string", `{"op":2,"toUserId":"7","msg":"hi"}`, bad, ""},
		{"replay without resume", `{"op":12}`, bad, ""},
		{"replay null", `{"op":12,"resume":null}`, bad, ""},
		{"replay an array", `{"op":12,"resume":["room:1"]}`, bad, ""},
		{"replay a bad name", `{"op":12,"resume":{"room:01":1}}`, bad, ""},
		{"replay a negative seq", `{"op":12,"resume":{"room:1":-1}}`, bad, ""},
		{"replay a null seq", `{"op":12,"resume":{"room:1":null}}`, bad, ""},
		{"replay one twice", `{"op":12,"resume":{"room:1":1,"room:1":2}}`, bad, ""},
		{"replay too many", `{"op":12,"resume":{` + manyMarks(contract.MaxResume+1) + `}}`, bad, ""},
		{"have a bad name", `{"op":10,"have":{"dm:7:3":1},"clientId":"c"}`, bad, "c"},
		{"have too many", `{"op":10,"have":{` + manyMarks(contract.MaxResume+1) + `}}`, bad, ""},
		{"read nowhere", `{"op":13,"seq":1}`, bad, ""},
		{"read without seq", `{"op":13,"conversation":"room:1"}`, bad, ""},
		{"read negative", `{"op":13,"conversation":"room:1","seq":-1}`, bad, ""},
		{"read a bad name", `{"op":13,"conversation":"room:x","seq":1}`, bad, ""},
		{"typing nowhere", `{"op":14}`, bad, ""},
		{"typing in a number", `{"op":14,"conversation":1}`, bad, ""},
		{"enter nowhere", `{"op":15}`, bad, ""},
		{"leave room 0", `{"op":16,"roomId":0}`, bad, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Decode([]byte(c.in))
			var e *contract.Error
			if !errors.As(err, &e) || e.Code != c.want {
				t.Errorf("got %v, want %s", err, c.want)
			}
			if want := (Request{ClientID: c.clientID}); !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

// A connection's buffer is used again for the next frame.
func TestDecodeDoesNotAlias(t *testing.T) {
	data := []byte(`{"op":3,"authToken":"t","roomId":1,"msg":"hello","clientId":"c"}`)
	got, err := Decode(data)
	for i := range data {
		data[i] = 'X'
	}
	want := Request{Op: OpRoom, AuthToken: "t", Room: 1, Text: "hello", ClientID: "c"}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

func BenchmarkDecode(b *testing.B) {
	for name, frame := range map[string]string{
		"ping":   `{"op":10}`,
		"send":   `{"op":3,"roomId":1,"msg":"hello there, how are you?","clientId":"0190c2f4-7e1a-7c3b-8a57-2f1f6f0f2b11"}`,
		"resume": `{"op":6,"authToken":"t","resume":{` + manyMarks(contract.MaxResume) + `}}`,
		"16KiB":  `{"op":3,"roomId":1,"msg":"` + strings.Repeat("a", contract.MaxTextBytes) + `"}`,
	} {
		b.Run(name, func(b *testing.B) {
			data := []byte(frame)
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Decode(data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
