package discovery

import (
	"context"
	"errors"
	"strings"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// login adds etcd's token to each call, and gets one where there is none. The client library's own way needs etcd
// to be up when the client is made, and sends an expired token with the request for a new one, which
// etcd 3.4 refuses for ever.
type login struct {
	user, password string
	conn           func() *grpc.ClientConn

	mu    sync.Mutex
	token string // "" if there is none
}

var _ credentials.PerRPCCredentials = (*login)(nil)

// GetRequestMetadata is called by grpc for each call.
func (l *login) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	if info, _ := credentials.RequestInfoFromContext(ctx); strings.HasSuffix(info.Method, "/Authenticate") {
		return nil, nil
	}
	l.mu.Lock()
	token := l.token
	l.mu.Unlock()
	if token == "" {
		r, err := pb.NewAuthClient(l.conn()).Authenticate(ctx, &pb.AuthenticateRequest{Name: l.user, Password: l.password})
		switch {
		case errors.Is(rpctypes.Error(err), rpctypes.ErrAuthNotEnabled):
			return nil, nil
		case err != nil:
			return nil, err
		}
		token = r.Token
		l.mu.Lock()
		l.token = token
		l.mu.Unlock()
	}
	return map[string]string{rpctypes.TokenFieldNameGRPC: token}, nil
}

// RequireTransportSecurity is false: etcd is on a private network, as is all between the layers.
func (l *login) RequireTransportSecurity() bool { return false }

// forget makes the next call get a new token. It is called after any failure, since a refused token shows itself
// in several ways.
func (l *login) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.token = ""
}

func (l *login) unary(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	err := invoke(ctx, method, req, reply, conn, opts...)
	if err != nil {
		l.forget()
	}
	return err
}
