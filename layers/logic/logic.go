package logic

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"gochat/layers/internal/contract"
	"gochat/observability"
)

var _ contract.LogicService = (*Logic)(nil)

// Store is what logic asks of the database. Commit stores all or nothing.
type Store interface {
	CreateUser(ctx context.Context, name, passwordHash string, now time.Time) (contract.User, error)
	UserByName(ctx context.Context, name string) (contract.User, string, error)
	User(ctx context.Context, id contract.UserID) (contract.User, error)
	FindUsers(ctx context.Context, prefix string, limit int) ([]contract.User, error)
	CountUsers(ctx context.Context, except string) (int64, error)

	CreateRoom(ctx context.Context, name string, private bool, owner contract.UserID, now time.Time) (contract.Room, error)
	Room(ctx context.Context, id contract.RoomID, user contract.UserID) (contract.Room, error)
	Rooms(ctx context.Context, user contract.UserID, query string, after contract.RoomID, limit int) ([]contract.Room, bool, error)
	Join(ctx context.Context, room contract.RoomID, user contract.UserID, now time.Time) error
	Leave(ctx context.Context, room contract.RoomID, user contract.UserID) error
	Members(ctx context.Context, room contract.RoomID, after contract.UserID, limit int) ([]contract.User, bool, error)

	Commit(ctx context.Context, batch []contract.Message, published []contract.OutboxPosition) ([]contract.CommitResult, error)
	History(ctx context.Context, c contract.Conversation, after, before int64, limit int) ([]contract.Message, bool, error)
	Heads(ctx context.Context, conversations []contract.Conversation) (map[contract.Conversation]int64, error)
	DirectHeads(ctx context.Context, users []contract.UserSince) ([]contract.UserHead, error)
	Trim(ctx context.Context, c contract.Conversation, below int64) error
	LastBefore(ctx context.Context, c contract.Conversation, since time.Time, before int64) (int64, error)
	MarkRead(ctx context.Context, user contract.UserID, c contract.Conversation, seq int64) (int64, error)
	Inbox(ctx context.Context, user contract.UserID, limit int) ([]contract.InboxEntry, error)
	OutboxEnd(ctx context.Context) (contract.OutboxPosition, error)
	OutboxSize(ctx context.Context) (count int64, oldest time.Time, err error)
	Outbox(ctx context.Context, after, end contract.OutboxPosition, limit int) ([]contract.OutboxRow, error)
	Stored(ctx context.Context, id contract.MessageID) (contract.StoredMessage, error)
	DeleteOutbox(ctx context.Context, rows []contract.OutboxPosition) error
}

// Sessions keeps who is logged in. Get, Touch and Create extend a session's life.
type Sessions interface {
	Create(ctx context.Context, user contract.UserID, name, device string, now time.Time) (token string, created contract.Session, ended []contract.SessionID, err error)
	CreateSingle(ctx context.Context, user contract.UserID, name, device string, now time.Time) (token string, created contract.Session, ended []contract.SessionID, err error)
	Get(ctx context.Context, id contract.SessionID) (contract.Session, error)
	Touch(ctx context.Context, ids []contract.SessionID) (ended []contract.SessionID, err error)
	End(ctx context.Context, ids ...contract.SessionID) error
	List(ctx context.Context, user contract.UserID) ([]contract.Session, error)
}

// Presence tells who is where, from the routes that connect nodes keep.
type Presence interface {
	Online(ctx context.Context, room contract.RoomID, live func(contract.NodeRef) bool, limit int) (int, []contract.User, error)
	Lives(ctx context.Context) ([]contract.NodeRef, error)
	Forget(ctx context.Context, node contract.NodeRef) ([]contract.RoomID, error)
}

// Publisher is the queue's entrance: it has the items when Publish returns nil, and those of all other partitions after
// a contract.PublishError.
type Publisher interface {
	Publish(ctx context.Context, items []contract.Item) error
	Partition(key string) int
	System() string // what the broker is called in spans
}

// IDs makes message ids. It fails while this process has no node number.
type IDs interface {
	Next() (contract.MessageID, error)
}

// Nodes is the picture of the connect nodes.
type Nodes interface {
	// Alive reports whether that life of a node goes on. It may wait a moment for news of a newer life.
	Alive(ctx context.Context, ref contract.NodeRef) bool
	// Changed is closed at the next change of the picture.
	Changed() <-chan struct{}
}

// Peers are all logic nodes, this one among them. Send goes to the node that its conversation prefers.
type Peers interface {
	Send(context.Context, *contract.SendRequest) (*contract.Receipt, error)
	ForgetSessions(context.Context, *contract.ForgetSessionsRequest) (*contract.Empty, error)
}

// Connects are all connect nodes.
type Connects interface {
	CloseSessions(context.Context, *contract.CloseSessionsRequest) (*contract.Empty, error)
	LeaveRoom(context.Context, *contract.NodeLeaveRoomRequest) (*contract.Empty, error)
}

// Singleton runs a job on one process of the system at a time: do, whose ctx ends before another may begin.
type Singleton interface {
	Hold(ctx context.Context, name string, do func(context.Context) error) error
}

// Dependencies are what a Logic works with.
type Dependencies struct {
	Store     Store
	Sessions  Sessions
	Presence  Presence
	Publisher Publisher
	IDs       IDs
	Nodes     Nodes
	Peers     Peers
	Connects  Connects
	Singleton Singleton
	Records   Records // nil: none are kept
}

// Logic is the layer. It answers calls from New on, but Send only while Run works.
type Logic struct {
	cfg  Config
	auth AuthConfig
	deps Dependencies
	tel  observability.Telemetry

	passwords *passwords
	sessions  *sessionCache
	rooms     *roomCache
	names     *nameCache
	limits    *limits
	committer *committer
	presence  *announcer
	entrance  *entrance
	demo      atomic.Bool // the demo users may log in
}

// New builds the layer. Both configurations must be valid.
func New(cfg Config, auth AuthConfig, deps Dependencies, tel observability.Telemetry) (*Logic, error) {
	limits, err := newLimits(cfg.Rate)
	if err != nil {
		return nil, err
	}
	sessions, err := newSessionCache(deps.Sessions, cfg.SessionCache)
	if err != nil {
		return nil, err
	}
	rooms, err := newRoomCache(deps.Store, cfg.SessionCache)
	if err != nil {
		return nil, err
	}
	names, err := newNameCache(deps.Store)
	if err != nil {
		return nil, err
	}
	m := newMetrics(tel.Metrics)
	tracer := tel.Traces.Tracer("gochat/layers/logic")
	in := &entrance{deps.Publisher, tracer}
	publisher := newPublisher(deps.Store, in, m, tel.Log)
	if deps.Records != nil {
		publisher.records = deps.Records
	}
	return &Logic{
		cfg: cfg, auth: auth, deps: deps, tel: tel,
		passwords: newPasswords(auth.Argon2),
		sessions:  sessions,
		rooms:     rooms,
		names:     names,
		limits:    limits,
		committer: newCommitter(cfg.Commit, deps.Store, publisher, m, tracer, tel.Log),
		presence:  newAnnouncer(deps.Presence, in, deps.Nodes, m, tel.Log),
		entrance:  in,
	}, nil
}

// CheckCommit is for readiness: nil unless the last commit, within the last minute, has failed.
func (l *Logic) CheckCommit(context.Context) error { return l.committer.failing() }

// Run accepts messages until ctx ends, then stores and publishes what was accepted, and returns.
func (l *Logic) Run(ctx context.Context) error {
	var g errgroup.Group
	g.Go(func() error { l.committer.run(ctx); return nil })
	g.Go(func() error { l.presence.run(ctx); return nil })
	g.Go(func() error {
		return l.deps.Singleton.Hold(ctx, "sweeper", l.committer.publisher.sweep)
	})
	return g.Wait()
}

// demoPassword is known to everybody.
const demoPassword = "111111"

func demoNames() []string { return []string{"demo", "test", "admin"} }

// knownToAll reports whether everybody could log in by this. It opens nothing but where MakeDemoUsers was called,
// whoever has made the user.
func knownToAll(name, password string) bool {
	return password == demoPassword && slices.Contains(demoNames(), name)
}

// MakeDemoUsers makes those of demo, test and admin that are missing, in a store that has no other people, and lets the
// demo users in from then on. It is for a process that nobody on another machine can reach.
func (l *Logic) MakeDemoUsers(ctx context.Context) error {
	l.demo.Store(true)
	users, err := l.deps.Store.CountUsers(ctx, canaryMark)
	if err != nil {
		return fmt.Errorf("count users: %w", err)
	}
	var missing []string
	for _, name := range demoNames() {
		_, _, err := l.deps.Store.UserByName(ctx, name)
		switch contract.CodeOf(err) {
		case "":
			users--
		case contract.NotFound:
			missing = append(missing, name)
		default:
			return fmt.Errorf("load user %s: %w", name, err)
		}
	}
	if users > 0 {
		return nil
	}
	for _, name := range missing {
		hash, err := l.passwords.hash(ctx, demoPassword)
		if err != nil {
			return err
		}
		if _, err := l.deps.Store.CreateUser(ctx, name, hash, now()); err != nil {
			return fmt.Errorf("create user %s: %w", name, err)
		}
	}
	return nil
}

// DemoUsers answers which of demo, test and admin are open to everybody: by the password that everybody knows.
func (l *Logic) DemoUsers(ctx context.Context) ([]string, error) {
	var open []string
	for _, name := range demoNames() {
		_, hash, err := l.deps.Store.UserByName(ctx, name)
		if contract.CodeOf(err) == contract.NotFound {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("load user %s: %w", name, err)
		}
		same, err := l.passwords.verify(ctx, demoPassword, hash, func() error { return nil })
		if err != nil {
			return nil, err
		}
		if same {
			open = append(open, name)
		}
	}
	return open, nil
}

// now is the time as it is stored and sent: UTC in whole milliseconds.
func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }
