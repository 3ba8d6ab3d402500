package layers

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// lessons are the faults that the seed's source has, by number, each with the tests that prove its absence here. A
// test is named by its package's folder and its function.
func lessons() map[string][]string {
	return map[string][]string{
		// A tcp length panics the process; a long body wraps it.
		"01": {"layers/connect/wire.TestTCPLengthBelowHeaderIsRefused", "layers/connect/wire.TestTCPBodyNeverWraps", "layers.TestBadPackets"},
		// A tcp room send never checks the token; the sender is what the client says.
		"02": {"layers.TestLesson02OnlyTheSessionSpeaks", "layers.TestSeedOps"},
		// A second auth frame makes the room's list a cycle.
		"03": {"layers.TestLesson03AuthFrameTwice"},
		// A private message to someone offline ends the process.
		"04": {"layers.TestLesson04PrivateToSomebodyOffline"},
		// A register race gives a session of another's account.
		"05": {"layers.TestLesson05RegisterRace"},
		// pprof in public, any origin, open rpc, tokens and bodies in the log.
		"06": {"layers.TestLesson06PublicPorts", "layers.TestLesson06StrangePages", "layers.TestLesson06RPCWantsTheSecret",
			"layers.TestLesson06LogsHoldNoSecrets", "layers/api.TestLogsHoldNoSecrets"},
		// Sockets outlive the logout; no membership; no deadlines.
		"07": {"layers.TestLesson07LogoutClosesSockets", "layers.TestLesson07PrivateRooms",
			"layers.TestLesson07AuthenticationDeadline", "layers.TestLesson07SlowHTTP"},
		// Unsalted passwords; shipped accounts.
		"08": {"layers.TestLesson08Passwords"},
		// An old socket's close removes the new session.
		"09": {"layers.TestLesson09OldSocketGoesAlone"},
		// One failed rpc ends the process.
		"10": {"layers.TestLesson10LogicDies"},
		// A transaction over several pooled connections.
		"11": {"layers/internal/session.TestStore"},
		// A getter that returns holding its mutex.
		"12": {"layers.TestLesson12AskingDoesNotBlock"},
		// A consumer that starts before what it feeds exists.
		"13": {"layers.TestLesson13AnyOrderOfStart"},
		// Unlocked reads; clients of nodes that left are never closed.
		"14": {"layers.TestLesson14NodesThatLeave"},
		// "ok" for what was not sent; retries that send again.
		"15": {"layers.TestOkMeansStored", "layers.TestLesson15RetryIsTheSameMessage", "layers/api.TestSeedFailures",
			"layers/internal/rpc.TestRepetition"},
		// A queue without ack; messages lost to people who move; rpcs without a deadline.
		"16": {"layers.TestLesson16MovingLosesNothing", "layers.TestLesson16TaskDies", "layers/internal/queue/redis.TestRedisServer",
			"layers/task.TestLateNodeDelaysNobody"},
		// A full channel drops silently.
		"17": {"layers.TestLesson17SlowReceiver", "layers/connect.TestSlowConsumer"},
		// Random workers reorder a room.
		"18": {"layers.TestCluster"},
		// Equal ids.
		"19": {"layers/internal/ids.TestUniqueOverGoroutines", "layers/internal/ids.TestUniqueOverNumbers",
			"layers/internal/discovery.TestNumbersAreUnique"},
		// A route that survives the disconnect and expires while connected.
		"20": {"layers.TestLesson20RouteOfALongConnection"},
		// Counts drift; ghosts; the leave event is empty.
		"21": {"layers.TestLesson21CountsAreTrue", "layers.TestCluster", "layers.TestSeedOps"},
		// Every error is status 200.
		"22": {"layers/api.TestV1Errors", "layers/api.TestSeedFailures", "layers.TestBadRequests"},
		// The member map is in every room message.
		"23": {"layers.TestLesson23RoomMessageNamesNobody"},
		// No tcp deadlines.
		"24": {"layers.TestLesson24HalfAPacket"},
		// Advertises 0.0.0.0; fixed configuration; every layer opens everything.
		"25": {"layers.TestLesson25Advertise", "layers.TestLesson25OwnDependencies", "layers/internal/config.TestLoad"},
		// No drain.
		"26": {"layers.TestLesson26Drain"},

		// What users of other systems reported.
		"goim": {"layers.TestLesson16MovingLosesNothing", "layers.TestLessonGoimManyRooms", "layers.TestGarbage",
			"layers/connect.TestMemoryAfterTheEnd", "layers/connect.TestMemoryWhenIdle"},
		"Centrifugo": {"layers.TestLessonCentrifugoRedisAway", "layers.TestLessonNATSNoCompression", "layers/connect.TestBomb",
			"layers/internal/queue/redis.TestSentinelFailover", "layers/internal/queue/redis.TestWipedRedisIsInitialisedAgain"},
		"OpenIM": {"layers.TestLessonOpenIMSlowRedis", "layers.TestLessonCentrifugoRedisAway", "layers.TestCluster", "layers.TestGarbage"},
		"Tinode": {"layers.TestLesson17SlowReceiver", "layers.TestLesson10LogicDies", "layers.TestLessonTinodeOwnMessagesAreRead"},
		"NATS": {"layers.TestLessonNATSNoCompression", "layers/connect.TestMemoryWhenDeflated", "layers/connect.TestMemoryWhenIdle",
			"layers/connect.TestCompressedOnce"},
		"WuKongIM": {"layers.TestSilentClients", "layers.TestBadCredentials", "layers.TestLesson13AnyOrderOfStart",
			"layers.TestLessonWuKongIMFirstMessage"},
		"gorilla": {"layers.TestBadMessages"},
	}
}

// TestLessonsAreProven: every lesson has tests, every test that is named exists, and every TestLesson is named.
func TestLessonsAreProven(t *testing.T) {
	all := lessons()
	wanted := []string{"goim", "Centrifugo", "OpenIM", "Tinode", "NATS", "WuKongIM", "gorilla"} // the others
	for n := range 26 {
		number := string(rune('0'+(n+1)/10)) + string(rune('0'+(n+1)%10))
		wanted = append(wanted, number)
	}
	for _, lesson := range wanted {
		if len(all[lesson]) == 0 {
			t.Errorf("lesson %s has no test", lesson)
		}
	}
	named := map[string]bool{}
	found := map[string][]string{} // by folder
	for lesson, tests := range all {
		for _, test := range tests {
			named[test] = true
			folder, name, _ := strings.Cut(test, ".")
			if found[folder] == nil {
				found[folder] = testsIn(t, filepath.Join("..", folder))
			}
			if !slices.Contains(found[folder], name) {
				t.Errorf("lesson %s: there is no %s", lesson, test)
			}
		}
	}
	for _, name := range testsIn(t, ".") {
		if strings.HasPrefix(name, "TestLesson") && name != "TestLessonsAreProven" && !named["layers."+name] {
			t.Errorf("%s is no lesson's; there are %v", name, slices.Sorted(maps.Keys(all)))
		}
	}
}
