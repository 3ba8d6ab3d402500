package logic

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"gochat/layers/internal/contract"
)

func (l *Logic) Register(ctx context.Context, r *contract.RegisterRequest) (*contract.SessionGrant, error) {
	if err := checkName("name", r.Name, contract.MaxNameBytes); err != nil {
		return nil, err
	}
	if r.Password == "" || len(r.Password) > contract.MaxPasswordBytes {
		return nil, contract.Errorf(contract.BadRequest, "password: want 1 to %d bytes", contract.MaxPasswordBytes)
	}
	if knownToAll(r.Name, r.Password) {
		return nil, contract.Errorf(contract.BadRequest, "password: everybody knows this one of %s", r.Name)
	}
	if err := checkDevice(r.Device); err != nil {
		return nil, err
	}
	hash, err := l.passwords.hash(ctx, r.Password)
	if err != nil {
		return nil, err
	}
	user, err := l.deps.Store.CreateUser(ctx, r.Name, hash, now())
	if err != nil {
		return nil, fmt.Errorf("create user: %w", err)
	}
	return l.grant(ctx, user, r.Device)
}

func (l *Logic) Login(ctx context.Context, r *contract.LoginRequest) (*contract.SessionGrant, error) {
	if len(r.Name) > contract.MaxNameBytes || len(r.Password) > contract.MaxPasswordBytes {
		return nil, contract.Errorf(contract.Unauthenticated, "name or password is wrong")
	}
	if err := checkDevice(r.Device); err != nil {
		return nil, err
	}
	if err := l.limits.login(r.Name); err != nil {
		return nil, err
	}
	user, hash, err := l.deps.Store.UserByName(ctx, r.Name)
	if err != nil && contract.CodeOf(err) != contract.NotFound {
		return nil, fmt.Errorf("load user: %w", err)
	}
	same, err := l.passwords.verify(ctx, r.Password, hash, func() error { return l.limits.login(r.Name) })
	if err != nil {
		return nil, err
	}
	if !same || knownToAll(r.Name, r.Password) && !l.demo.Load() {
		l.limits.failed(r.Name)
		return nil, contract.Errorf(contract.Unauthenticated, "name or password is wrong")
	}
	return l.grant(ctx, user, r.Device)
}

// grant makes a session and, as the policy says, ends others.
func (l *Logic) grant(ctx context.Context, user contract.User, device string) (*contract.SessionGrant, error) {
	create := l.deps.Sessions.Create
	if l.auth.LoginPolicy == PolicySingle {
		create = l.deps.Sessions.CreateSingle
	}
	token, session, ended, err := create(ctx, user.ID, user.Name, device, now())
	if err != nil {
		return nil, fmt.Errorf("create session: %w", err)
	}
	l.spread(ctx, ended, contract.Replaced)
	return &contract.SessionGrant{Token: token, User: user.ID, Name: user.Name, ExpiresAt: session.ExpiresAt}, nil
}

// spread makes the end of sessions known: every logic node forgets them, every connect node closes their sockets.
func (l *Logic) spread(ctx context.Context, ended []contract.SessionID, code contract.Code) {
	if len(ended) == 0 {
		return
	}
	l.sessions.cache.drop(ended...)
	// At once, since a node that hangs takes all the time there is. Neither returns an error: whom they cannot reach
	// finds out by itself.
	var telling sync.WaitGroup
	telling.Go(func() { _, _ = l.deps.Peers.ForgetSessions(ctx, &contract.ForgetSessionsRequest{Sessions: ended}) })
	telling.Go(func() {
		_, _ = l.deps.Connects.CloseSessions(ctx, &contract.CloseSessionsRequest{Sessions: ended, Code: code})
	})
	telling.Wait()
}

func (l *Logic) Logout(ctx context.Context, r *contract.LogoutRequest) (*contract.Empty, error) {
	session, err := l.sessions.who(ctx, r.Credential)
	if err != nil {
		return nil, err
	}
	return l.end(ctx, session.ID)
}

func (l *Logic) end(ctx context.Context, ids ...contract.SessionID) (*contract.Empty, error) {
	if err := l.deps.Sessions.End(ctx, ids...); err != nil {
		return nil, fmt.Errorf("end session: %w", err)
	}
	l.spread(ctx, ids, contract.SessionEnded)
	return &contract.Empty{}, nil
}

func (l *Logic) Authenticate(ctx context.Context, r *contract.AuthenticateRequest) (*contract.Identity, error) {
	s, err := l.sessions.who(ctx, r.Credential)
	if err != nil {
		return nil, err
	}
	return &contract.Identity{User: s.User, Name: s.Name, Session: s.ID, Device: s.Device, ExpiresAt: s.ExpiresAt}, nil
}

func (l *Logic) Sessions(ctx context.Context, r *contract.SessionsRequest) (*contract.SessionsReply, error) {
	own, err := l.sessions.who(ctx, r.Credential)
	if err != nil {
		return nil, err
	}
	all, err := l.deps.Sessions.List(ctx, own.User)
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	reply := &contract.SessionsReply{Sessions: make([]contract.SessionInfo, len(all))}
	for i, s := range all {
		reply.Sessions[i] = contract.SessionInfo{
			ID: s.ID, Device: s.Device, CreatedAt: s.CreatedAt, ExpiresAt: s.ExpiresAt, Current: s.ID == own.ID}
	}
	return reply, nil
}

func (l *Logic) EndSessions(ctx context.Context, r *contract.EndSessionsRequest) (*contract.Empty, error) {
	own, err := l.sessions.who(ctx, r.Credential)
	if err != nil {
		return nil, err
	}
	all, err := l.deps.Sessions.List(ctx, own.User)
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	var ids []contract.SessionID
	for _, s := range all {
		if s.ID == r.Session || r.Session == "" && s.ID != own.ID {
			ids = append(ids, s.ID)
		}
	}
	if r.Session != "" && !slices.Contains(ids, r.Session) {
		return nil, contract.Errorf(contract.NotFound, "no such session")
	}
	if len(ids) == 0 {
		return &contract.Empty{}, nil
	}
	return l.end(ctx, ids...)
}

func (l *Logic) CheckSessions(ctx context.Context, r *contract.CheckSessionsRequest) (*contract.CheckSessionsReply, error) {
	ended, err := l.deps.Sessions.Touch(ctx, r.Sessions)
	if err != nil {
		return nil, fmt.Errorf("extend sessions: %w", err)
	}
	l.sessions.cache.drop(ended...)
	return &contract.CheckSessionsReply{Ended: ended}, nil
}

func (l *Logic) ForgetSessions(_ context.Context, r *contract.ForgetSessionsRequest) (*contract.Empty, error) {
	l.sessions.cache.drop(r.Sessions...)
	return &contract.Empty{}, nil
}

func (l *Logic) FindUsers(ctx context.Context, r *contract.FindUsersRequest) (*contract.UsersReply, error) {
	_, limit, err := l.callerAndPage(ctx, r.Credential, r.Limit, 20)
	if err != nil {
		return nil, err
	}
	if r.Name == "" || len(r.Name) > contract.MaxNameBytes || !utf8.ValidString(r.Name) {
		return nil, contract.Errorf(contract.BadRequest, "name: want the beginning of a name")
	}
	if isCanary(r.Name) || strings.HasPrefix(canaryMark, r.Name) {
		return &contract.UsersReply{}, nil // nobody else is called so
	}
	users, err := l.deps.Store.FindUsers(ctx, r.Name, limit)
	if err != nil {
		return nil, fmt.Errorf("find users: %w", err)
	}
	return &contract.UsersReply{Users: users}, nil
}

// checkName accepts names that look the same to everybody who reads them.
func checkName(field, name string, limit int) error {
	switch {
	case name == "" || len(name) > limit:
		return contract.Errorf(contract.BadRequest, "%s: want 1 to %d bytes", field, limit)
	case !utf8.ValidString(name):
		return contract.Errorf(contract.BadRequest, "%s: want UTF-8", field)
	case strings.TrimSpace(name) != name:
		return contract.Errorf(contract.BadRequest, "%s: want no space at its ends", field)
	case strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }):
		return contract.Errorf(contract.BadRequest, "%s: want printable characters", field)
	}
	return nil
}

func checkDevice(device string) error {
	if device == "" {
		return nil
	}
	return checkName("device", device, contract.MaxDeviceBytes)
}

// callerAndPage answers who calls, and the size of the page that they asked for.
func (l *Logic) callerAndPage(ctx context.Context, c contract.Credential, limit, otherwise int) (contract.Session, int, error) {
	session, err := l.sessions.who(ctx, c)
	if err != nil {
		return session, 0, err
	}
	limit, err = page(limit, otherwise)
	return session, limit, err
}

// page is the size of a page that was asked for; 0 takes the default.
func page(limit, otherwise int) (int, error) {
	if limit == 0 {
		return otherwise, nil
	}
	if limit < 0 || limit > contract.MaxPage {
		return 0, contract.Errorf(contract.BadRequest, "limit: want 1 to %d", contract.MaxPage)
	}
	return limit, nil
}
