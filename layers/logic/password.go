package logic

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"runtime"
	"strings"

	"golang.org/x/crypto/argon2"
)

// passwords hashes with argon2id into PHC strings, no more at once than there are processors: each takes its
// memory and a core, so that a storm of logins waits instead of swapping.
type passwords struct {
	cost  Argon2Config
	slots chan struct{}
	dummy string // checked for names that do not exist, so that they take as long as those that do
}

const (
	saltBytes = 16
	keyBytes  = 32
)

func newPasswords(cost Argon2Config) *passwords {
	p := &passwords{cost: cost, slots: make(chan struct{}, runtime.GOMAXPROCS(0))}
	p.dummy = encodePHC(cost, make([]byte, saltBytes), make([]byte, keyBytes))
	return p
}

// hash makes a PHC string: $argon2id$v=19$m=…,t=…,p=1$salt$hash. It waits for a free slot or the end of ctx.
func (p *passwords) hash(ctx context.Context, password string) (string, error) {
	salt := make([]byte, saltBytes)
	_, _ = rand.Read(salt) // documented never to fail
	var phc string
	err := p.slot(ctx, func() error {
		phc = encodePHC(p.cost, salt, argon2.IDKey([]byte(password), salt, p.cost.Time, p.cost.MemoryKiB, 1, keyBytes))
		return nil
	})
	return phc, err
}

// verify reports whether the password made the PHC string, whose cost may be another than today's. With phc ""
// it takes its time and answers false. It asks allowed when it has a slot: many tries may have waited for one.
func (p *passwords) verify(ctx context.Context, password, phc string, allowed func() error) (bool, error) {
	if phc == "" {
		_, err := p.verify(ctx, password, p.dummy, allowed)
		return false, err
	}
	cost, salt, want, err := decodePHC(phc)
	if err != nil {
		return false, err
	}
	var same bool
	err = p.slot(ctx, func() error {
		if err := allowed(); err != nil {
			return err
		}
		got := argon2.IDKey([]byte(password), salt, cost.Time, cost.MemoryKiB, 1, uint32(len(want)))
		same = subtle.ConstantTimeCompare(got, want) == 1
		return nil
	})
	return same, err
}

func (p *passwords) slot(ctx context.Context, work func() error) error {
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("wait to hash a password: %w", ctx.Err())
	}
	defer func() { <-p.slots }()
	return work()
}

func encodePHC(cost Argon2Config, salt, key []byte) string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=1$%s$%s", argon2.Version, cost.MemoryKiB, cost.Time,
		b64.EncodeToString(salt), b64.EncodeToString(key))
}

func decodePHC(phc string) (cost Argon2Config, salt, key []byte, err error) {
	fail := func(err error) (Argon2Config, []byte, []byte, error) {
		return Argon2Config{}, nil, nil, fmt.Errorf("read password hash: %w", err)
	}
	parts := strings.Split(phc, "$")
	if len(parts) != 6 || parts[1] != "argon2id" {
		return fail(fmt.Errorf("not argon2id"))
	}
	var version int
	if _, err := fmt.Sscanf(parts[2], "v=%d", &version); err != nil || version != argon2.Version {
		return fail(fmt.Errorf("unknown version"))
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=1", &cost.MemoryKiB, &cost.Time); err != nil {
		return fail(err)
	}
	if salt, err = base64.RawStdEncoding.DecodeString(parts[4]); err != nil {
		return fail(err)
	}
	if key, err = base64.RawStdEncoding.DecodeString(parts[5]); err != nil {
		return fail(err)
	}
	if len(salt) == 0 || len(key) == 0 || cost.Time == 0 {
		return fail(fmt.Errorf("empty part"))
	}
	return cost, salt, key, nil
}
