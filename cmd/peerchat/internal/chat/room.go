package chat

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"slices"

	"peerlink/identity"
)

// rowBytes is what a message takes on the disk besides its text: its row, and its
// entries in three indexes. Measured with texts of one byte: 250.
const rowBytes = 256

// share is the room of conversations of one standing, in messages and in bytes on
// the disk.
type share struct {
	messages, bytes    int64 // of one conversation
	conversations, all int64 // of all of them
}

// shares are the room of members, and that of strangers: of these all together have
// as much as one member.
func shares() [2]share {
	return [...]share{
		member:   {messages: 50_000, bytes: 64 << 20, conversations: 4096, all: 1 << 30}, // as many as there may be contacts
		stranger: {messages: 1000, bytes: 4 << 20, conversations: 1024, all: 64 << 20},
	}
}

// standing is whose a conversation is.
type standing int

const (
	// member: the device is one for whom room is kept, or this device's user has
	// written to it.
	member standing = iota
	// stranger: all others. What has been said goes, the oldest of the longest
	// conversation first, as soon as strangers' room is needed for others of them.
	stranger
)

// begin makes sure that there is a conversation, and returns whose it is now.
func (s *Store) begin(tx *sql.Tx, peer identity.DeviceID, by standing) (standing, error) {
	var was standing
	err := tx.QueryRowContext(context.Background(), "SELECT stranger FROM conversations WHERE peer = ?", peer[:]).Scan(&was)
	if err == nil && was <= by {
		return was, nil
	}
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return by, err
	}
	if by == member {
		var n int64
		if err := tx.QueryRowContext(context.Background(), "SELECT count(*) FROM conversations WHERE stranger = 0").Scan(&n); err != nil {
			return by, err
		}
		if n >= s.shares[member].conversations {
			return by, fmt.Errorf("%w: there are %d conversations already (peerchat history --delete ends one)", ErrFull, n)
		}
	}
	_, err = tx.ExecContext(context.Background(), "INSERT INTO conversations (peer, n, bytes, stranger) VALUES (?, 0, 0, ?) ON CONFLICT DO UPDATE SET stranger = excluded.stranger", peer[:], by)
	return by, err
}

// prune drops the oldest messages of a conversation that has too many, a
// hundredth at a time. What waits to be sent to a member stays.
func (s *Store) prune(tx *sql.Tx, peer identity.DeviceID, of standing) error {
	for {
		var n, bytes int64
		if err := tx.QueryRowContext(context.Background(), "SELECT n, bytes + ? * n FROM conversations WHERE peer = ?", rowBytes, peer[:]).Scan(&n, &bytes); err != nil {
			return err
		}
		if n <= s.shares[of].messages && bytes <= s.shares[of].bytes {
			return nil
		}
		if gone, err := drop(tx, peer[:], of, n/100+1); err != nil || gone == 0 {
			return err
		}
	}
}

// thin makes room in a share. The longest conversation loses its oldest messages,
// and of too many strangers the one that has been silent for longest goes: many keys
// cost each other their room before they cost a stranger of few words theirs.
func (s *Store) thin(tx *sql.Tx, of standing) error {
	for {
		var n, used int64
		if err := tx.QueryRowContext(context.Background(), "SELECT count(*), coalesce(sum(bytes + ? * n), 0) FROM conversations WHERE stranger = ?", rowBytes, of).Scan(&n, &used); err != nil {
			return err
		}
		find, part := fmt.Sprintf("bytes + %d * n DESC", rowBytes), int64(100)
		switch {
		case of == stranger && n > s.shares[of].conversations:
			find, part = "(SELECT max(seq) FROM messages m WHERE m.peer = c.peer)", 1 // the whole of it
		case used <= s.shares[of].all:
			return nil
		}
		var peer identity.DeviceID
		var b []byte
		err := tx.QueryRowContext(context.Background(), `SELECT peer, n FROM conversations c WHERE stranger = ?1 AND EXISTS
			(SELECT 1 FROM messages m WHERE m.peer = c.peer AND (?1 OR NOT (mine = 1 AND mark < 2))) ORDER BY `+find+" LIMIT 1", of).Scan(&b, &n)
		if errors.Is(err, sql.ErrNoRows) { // all that is there waits to be sent
			return nil
		}
		if err != nil {
			return err
		}
		if copy(peer[:], b); of == stranger && s.known != nil && s.known(peer) {
			_, err = tx.ExecContext(context.Background(), "UPDATE conversations SET stranger = 0 WHERE peer = ?", b)
		} else {
			_, err = drop(tx, b, of, n/part+1)
		}
		if err != nil {
			return err
		}
	}
}

// drop deletes the oldest messages of a conversation, so many at most, and a
// conversation of which nothing is left. What waits to be sent to a member stays.
func drop(tx *sql.Tx, peer []byte, of standing, most int64) (gone int64, err error) {
	found, err := tx.QueryContext(context.Background(), `DELETE FROM messages WHERE seq IN (SELECT seq FROM messages
		WHERE peer = ? AND (? OR NOT (mine = 1 AND mark < 2)) ORDER BY seq LIMIT ?) RETURNING length(CAST(text AS BLOB))`, peer, of, most)
	if err != nil {
		return 0, err
	}
	defer found.Close()
	var bytes, n int64
	for found.Next() {
		if err := found.Scan(&n); err != nil {
			return gone, err
		}
		gone++
		bytes += n
	}
	if err := errors.Join(found.Err(), found.Close()); err != nil {
		return gone, err
	}
	if _, err := tx.ExecContext(context.Background(), "UPDATE conversations SET n = n - ?, bytes = bytes - ? WHERE peer = ?", gone, bytes, peer); err != nil {
		return gone, err
	}
	_, err = tx.ExecContext(context.Background(), "DELETE FROM conversations WHERE peer = ? AND n = 0", peer)
	return gone, err
}

// Delete deletes all that was said with some devices, and what waits for them, and
// returns how many messages that was. The file becomes smaller by them; Delete blocks
// for as long as it takes to write the rest anew.
func (s *Store) Delete(peers ...identity.DeviceID) (gone int64, err error) {
	err = s.within(func(tx *sql.Tx) error {
		for _, p := range peers {
			n, err := drop(tx, p[:], stranger, math.MaxInt64)
			if err != nil {
				return err
			}
			gone += n
		}
		return nil
	})
	if err == nil && gone > 0 {
		if _, err = s.db.ExecContext(context.Background(), "VACUUM; PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
			err = fmt.Errorf("%d messages are deleted, and their room is used again, but the file did not become smaller: %w", gone, err)
		}
	}
	return gone, err
}

// DeleteStrangers is Delete for all devices for which no room is kept, and to which
// this device's user has not written.
func (s *Store) DeleteStrangers() (gone int64, err error) {
	peers, err := rows(s, readPeer, "SELECT peer FROM conversations WHERE stranger = 1")
	if err != nil {
		return 0, err
	}
	return s.Delete(slices.DeleteFunc(peers, func(p identity.DeviceID) bool { return s.known != nil && s.known(p) })...)
}
