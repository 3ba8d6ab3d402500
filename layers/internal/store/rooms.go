package store

import (
	"context"
	"strings"
	"time"

	"gorm.io/gorm"

	"gochat/layers/internal/contract"
)

type roomRow struct {
	ID        contract.RoomID
	Name      string
	Private   bool
	OwnerID   contract.UserID
	CreatedAt int64
	Member    bool
}

func (r roomRow) room() contract.Room {
	return contract.Room{ID: r.ID, Name: r.Name, Private: r.Private, Owner: r.OwnerID,
		CreatedAt: time.UnixMilli(r.CreatedAt).UTC(), Member: r.Member}
}

// selectRooms takes the user whose membership is told.
const selectRooms = `SELECT r.id, r.name, r.private, COALESCE(r.owner_id, 0) AS owner_id, r.created_at,
		m.user_id IS NOT NULL AS member
	FROM rooms r LEFT JOIN members m ON m.room_id = r.id AND m.user_id = ? `

const insertMember = `INSERT INTO members (room_id, user_id, joined_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`

// CreateRoom makes a room and the owner its first member. The name may be another room's too; BadRequest if it
// cannot be stored. The owner must exist.
func (s *Store) CreateRoom(ctx context.Context, name string, private bool, owner contract.UserID, now time.Time) (_ contract.Room, err error) {
	ctx, end := s.begin(ctx, "create room")
	defer end(&err)
	if !storable(name) {
		return contract.Room{}, contract.Errorf(contract.BadRequest, "room name is not valid text")
	}
	row := roomRow{Name: name, Private: private, OwnerID: owner, CreatedAt: now.UnixMilli(), Member: true}
	err = s.transact(ctx, func(tx *gorm.DB) error {
		err := tx.Raw(`INSERT INTO rooms (name, name_folded, private, owner_id, created_at) VALUES (?, ?, ?, ?, ?) RETURNING id`,
			name, strings.ToLower(name), private, int64(owner), row.CreatedAt).Scan(&row.ID).Error
		if err != nil {
			return err
		}
		return tx.Exec(insertMember, int64(row.ID), int64(owner), row.CreatedAt).Error
	})
	if err != nil {
		return contract.Room{}, err
	}
	return row.room(), nil
}

// Room answers one room, private or not, and whether the user is a member. NotFound if there is none.
func (s *Store) Room(ctx context.Context, id contract.RoomID, user contract.UserID) (_ contract.Room, err error) {
	ctx, end := s.begin(ctx, "load room")
	defer end(&err)
	var row roomRow
	if err := s.query(ctx).Raw(selectRooms+`WHERE r.id = ?`, int64(user), int64(id)).Scan(&row).Error; err != nil {
		return contract.Room{}, err
	}
	if row.ID == 0 {
		return contract.Room{}, contract.Errorf(contract.NotFound, "room %d", id)
	}
	return row.room(), nil
}

// Rooms answers public rooms and the user's private ones with an id above after, by id, at most limit; more says
// that there are further ones. The query is a part of the name in any case; "" is every room.
func (s *Store) Rooms(ctx context.Context, user contract.UserID, query string, after contract.RoomID, limit int) (rooms []contract.Room, more bool, err error) {
	ctx, end := s.begin(ctx, "list rooms")
	defer end(&err)
	if !storable(query) {
		return nil, false, nil
	}
	pattern := "%" + strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(strings.ToLower(query)) + "%"
	var rows []roomRow
	err = s.query(ctx).Raw(selectRooms+`WHERE r.id > ? AND r.name_folded LIKE ? ESCAPE '\'
			AND (NOT r.private OR m.user_id IS NOT NULL)
		ORDER BY r.id LIMIT ?`, int64(user), int64(after), pattern, limit+1).Scan(&rows).Error
	if err != nil {
		return nil, false, err
	}
	rows, more = page(rows, limit)
	for _, r := range rows {
		rooms = append(rooms, r.room())
	}
	return rooms, more, nil
}

// page cuts the row that was read beyond the limit to learn whether there is one.
func page[T any](rows []T, limit int) (_ []T, more bool) {
	if len(rows) > limit {
		return rows[:limit], true
	}
	return rows, false
}

// Join makes the user a member; one who is a member stays one. NotFound if there is no such room. The user must
// exist. Whether the room is private is the caller's to mind.
func (s *Store) Join(ctx context.Context, room contract.RoomID, user contract.UserID, now time.Time) (err error) {
	ctx, end := s.begin(ctx, "join room")
	defer end(&err)
	r, err := s.Room(ctx, room, user) // rooms are never deleted, so what this finds is there below
	if err != nil || r.Member {
		return err
	}
	return s.update(ctx, func(db *gorm.DB) error {
		return db.Exec(insertMember, int64(room), int64(user), now.UnixMilli()).Error
	})
}

// Leave ends the user's membership; one who is no member stays none.
func (s *Store) Leave(ctx context.Context, room contract.RoomID, user contract.UserID) (err error) {
	ctx, end := s.begin(ctx, "leave room")
	defer end(&err)
	return s.update(ctx, func(db *gorm.DB) error {
		return db.Exec(`DELETE FROM members WHERE room_id = ? AND user_id = ?`, int64(room), int64(user)).Error
	})
}

// Members answers the room's members with an id above after, by id, at most limit; more says that there are
// further ones. A room that does not exist has none.
func (s *Store) Members(ctx context.Context, room contract.RoomID, after contract.UserID, limit int) (users []contract.User, more bool, err error) {
	ctx, end := s.begin(ctx, "list members")
	defer end(&err)
	err = s.query(ctx).Raw(`SELECT u.id, u.name FROM members m JOIN users u ON u.id = m.user_id
		WHERE m.room_id = ? AND m.user_id > ? ORDER BY m.user_id LIMIT ?`, int64(room), int64(after), limit+1).Scan(&users).Error
	if err != nil {
		return nil, false, err
	}
	users, more = page(users, limit)
	return users, more, nil
}
