package store

import (
	"context"
	"strings"
	"time"
	"unicode/utf8"

	"gorm.io/gorm"

	"gochat/layers/internal/contract"
)

// storable reports whether both databases can hold the text unchanged.
func storable(text string) bool { return utf8.ValidString(text) && !strings.Contains(text, "\x00") }

// CreateUser makes a user. Conflict if the name is taken, by exactly these bytes; BadRequest if it cannot be stored.
func (s *Store) CreateUser(ctx context.Context, name, passwordHash string, now time.Time) (_ contract.User, err error) {
	ctx, end := s.begin(ctx, "create user")
	defer end(&err)
	if !storable(name) {
		return contract.User{}, contract.Errorf(contract.BadRequest, "name is not valid text")
	}
	user := contract.User{Name: name}
	err = s.update(ctx, func(db *gorm.DB) error {
		return db.Raw(`INSERT INTO users (name, password_hash, created_at) VALUES (?, ?, ?)
			ON CONFLICT (name) DO NOTHING RETURNING id`, name, passwordHash, now.UnixMilli()).Scan(&user.ID).Error
	})
	if err != nil {
		return contract.User{}, err
	}
	if user.ID == 0 {
		return contract.User{}, contract.Errorf(contract.Conflict, "name %q is taken", name)
	}
	return user, nil
}

// UserByName answers the user of exactly this name, and the password hash. NotFound if there is none.
func (s *Store) UserByName(ctx context.Context, name string) (_ contract.User, passwordHash string, err error) {
	ctx, end := s.begin(ctx, "load user by name")
	defer end(&err)
	var row struct {
		ID           contract.UserID
		PasswordHash string
	}
	if storable(name) {
		err = s.query(ctx).Raw(`SELECT id, password_hash FROM users WHERE name = ?`, name).Scan(&row).Error
	}
	if err != nil {
		return contract.User{}, "", err
	}
	if row.ID == 0 {
		return contract.User{}, "", contract.Errorf(contract.NotFound, "user %q", name)
	}
	return contract.User{ID: row.ID, Name: name}, row.PasswordHash, nil
}

// User answers the user of the id. NotFound if there is none.
func (s *Store) User(ctx context.Context, id contract.UserID) (_ contract.User, err error) {
	ctx, end := s.begin(ctx, "load user")
	defer end(&err)
	var user contract.User
	if err := s.query(ctx).Raw(`SELECT id, name FROM users WHERE id = ?`, int64(id)).Scan(&user).Error; err != nil {
		return contract.User{}, err
	}
	if user.ID == 0 {
		return contract.User{}, contract.Errorf(contract.NotFound, "user %d", id)
	}
	return user, nil
}

// FindUsers answers users whose name begins with exactly these bytes, by name, at most limit.
func (s *Store) FindUsers(ctx context.Context, prefix string, limit int) (users []contract.User, err error) {
	ctx, end := s.begin(ctx, "find users")
	defer end(&err)
	if !storable(prefix) {
		return nil, nil
	}
	// A range of names, not LIKE: it uses the index, has no characters of special meaning, and minds case alike in
	// both databases.
	query, args := `SELECT id, name FROM users WHERE name >= ?`, []any{prefix}
	if end := afterPrefix(prefix); end != "" {
		query, args = query+` AND name < ?`, append(args, end)
	}
	err = s.query(ctx).Raw(query+` ORDER BY name LIMIT ?`, append(args, limit)...).Scan(&users).Error
	return users, err
}

// afterPrefix is the least text above every text that begins with the prefix; "" if there is none.
func afterPrefix(prefix string) string {
	for prefix != "" {
		last, size := utf8.DecodeLastRuneInString(prefix)
		prefix = prefix[:len(prefix)-size]
		switch {
		case last == 0xD7FF: // what follows is no character, up to E000
			return prefix + "\uE000"
		case last < utf8.MaxRune:
			return prefix + string(last+1)
		}
	}
	return ""
}

// CountUsers answers how many users there are whose name does not begin with exactly the bytes of except, which are some.
func (s *Store) CountUsers(ctx context.Context, except string) (count int64, err error) {
	ctx, end := s.begin(ctx, "count users")
	defer end(&err)
	query, args := `SELECT count(*) FROM users WHERE name < ?`, []any{except}
	if end := afterPrefix(except); end != "" {
		query, args = query+` OR name >= ?`, append(args, end)
	}
	err = s.query(ctx).Raw(query, args...).Scan(&count).Error
	return count, err
}
