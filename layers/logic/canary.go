package logic

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"gochat/layers/internal/contract"
)

// canaryMark begins the name of every canary, and of nobody else: checkName lets no name begin with a space. Canaries have no
// password, so nobody logs in as one.
const canaryMark = " canary of "

func isCanary(name string) bool { return strings.HasPrefix(name, canaryMark) }

// A canary's conversation keeps its latest messages, canaryKeep of them, and is trimmed at every canaryTrim-th.
const (
	canaryKeep = 100
	canaryTrim = 50
)

// CanarySession implements contract.Logic. It is reached by rpc alone.
func (l *Logic) CanarySession(ctx context.Context, r *contract.CanarySessionRequest) (*contract.SessionGrant, error) {
	if err := checkConnectNode(r.Node); err != nil {
		return nil, err
	}
	user, err := l.canary(ctx, canaryMark+string(r.Node))
	if err != nil {
		return nil, err
	}
	// One session for each, whatever the login policy: the one of a process that died would else stay for its whole life.
	token, session, ended, err := l.deps.Sessions.CreateSingle(ctx, user.ID, user.Name, "canary", now())
	if err != nil {
		return nil, fmt.Errorf("create session of a canary: %w", err)
	}
	l.spread(ctx, ended, contract.Replaced)
	return &contract.SessionGrant{Token: token, User: user.ID, Name: user.Name, ExpiresAt: session.ExpiresAt}, nil
}

// canary answers the canary of that name, which is made if there is none.
func (l *Logic) canary(ctx context.Context, name string) (contract.User, error) {
	user, _, err := l.deps.Store.UserByName(ctx, name)
	if contract.CodeOf(err) == contract.NotFound {
		user, err = l.deps.Store.CreateUser(ctx, name, "", now())
	}
	if contract.CodeOf(err) == contract.Conflict { // it was made meanwhile
		user, _, err = l.deps.Store.UserByName(ctx, name)
	}
	if err != nil {
		return contract.User{}, fmt.Errorf("load or make the canary: %w", err)
	}
	return user, nil
}

// nodeNumbers is how many numbers nodes may have, as many as a message id has room for: so many canaries there are at most.
const nodeNumbers = 1024

// checkConnectNode accepts the names that connect nodes have.
func checkConnectNode(node contract.NodeID) error {
	digits, found := strings.CutPrefix(string(node), contract.LayerConnect+"-")
	n, err := strconv.Atoi(digits)
	if !found || err != nil || n < 0 || n >= nodeNumbers || strconv.Itoa(n) != digits {
		return contract.Errorf(contract.BadRequest, "node %.40q: want connect-NUMBER", string(node))
	}
	return nil
}

// trimCanary deletes the canary's older messages once in a while. What is not deleted now is the next time.
func (l *Logic) trimCanary(ctx context.Context, latest contract.Message) {
	if latest.Seq%canaryTrim != 0 || latest.Seq <= canaryKeep {
		return
	}
	if err := l.deps.Store.Trim(ctx, latest.Conversation, latest.Seq-canaryKeep+1); err != nil {
		l.tel.Log.WarnContext(ctx, "conversation of a canary not trimmed", "user", int64(latest.From), "err", err)
	}
}
