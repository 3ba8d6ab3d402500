package session

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strings"

	"gochat/layers/internal/contract"
)

// newToken is 256 random bits: too many to guess, and so many that a plain hash protects them.
func newToken() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // documented never to fail
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// HashToken is the name of the session that the token opens: its SHA-256 in lower-case hex. The empty token opens
// none and gives "".
func HashToken(token string) contract.SessionID {
	if token == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(token))
	return contract.SessionID(hex.EncodeToString(sum[:]))
}

// wellFormed keeps whatever a client gave as a session's name from becoming a key.
func wellFormed(id contract.SessionID) bool {
	return len(id) == 2*sha256.Size && strings.Trim(string(id), "0123456789abcdef") == ""
}
