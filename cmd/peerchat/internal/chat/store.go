package chat

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"modernc.org/sqlite" // also the driver "sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"peerlink/identity"
)

// Bounds.
const (
	// MaxText is the length of a message's text in bytes.
	MaxText = 64 << 10
	// MaxWaiting is how many messages to one device may wait.
	MaxWaiting    = 1000
	idLen         = 16
	schemaVersion = 1
)

var (
	// ErrFull is matched when too many messages wait, or there are too many
	// conversations. It is not for good: messages are delivered, and Delete makes room.
	ErrFull = errors.New("no room")
	// ErrNewer is matched when the database is of a newer release.
	ErrNewer = errors.New("it is of a newer release of peerchat")
)

// Mark is what became of a message of this device.
type Mark int

// The marks, in the order of a message's life. Queued is the zero value.
const (
	Queued    Mark = iota // kept here until the device can be reached
	Sent                  // on its way
	Delivered             // on the device's disk
	Failed                // refused there; Message.Reason says why
)

// String returns "queued", "sent", "delivered" or "failed".
func (m Mark) String() string {
	names := [...]string{"queued", "sent", "delivered", "failed"}
	if m < 0 || int(m) >= len(names) {
		return "unknown"
	}
	return names[m]
}

// Message is one message of a conversation.
type Message struct {
	Seq    int64 // above 0; orders all messages of this device
	Peer   identity.DeviceID
	ID     [idLen]byte
	Mine   bool // sent by this device
	Text   string
	At     time.Time // when it was written (by its writer's clock), to the millisecond
	Mark   Mark      // of a message of this device
	Reason string    // why it Failed
}

// Conversation is what there is with one device.
type Conversation struct {
	Peer   identity.DeviceID
	Last   time.Time // of the newest message
	Unread int       // messages that came after the last one seen
}

// Store is the database. Its methods may be called concurrently and block for
// the disk.
type Store struct {
	db     *sql.DB
	note   string
	shares [2]share // of each standing
	// known reports whether a device is a member, whatever its conversation was
	// when its last message came; nil: none is. New sets it before its first message.
	known func(identity.DeviceID) bool
}

const schema = `
CREATE TABLE messages (
	seq    INTEGER PRIMARY KEY AUTOINCREMENT,
	peer   BLOB NOT NULL,
	id     BLOB NOT NULL,
	mine   INTEGER NOT NULL,
	text   TEXT NOT NULL,
	at     INTEGER NOT NULL,
	mark   INTEGER NOT NULL,
	reason TEXT NOT NULL DEFAULT '',
	UNIQUE (peer, id, mine)
);
CREATE INDEX messages_of ON messages (peer, seq);
CREATE INDEX messages_waiting ON messages (peer, seq) WHERE mine = 1 AND mark < 2;
CREATE TABLE conversations (
	peer  BLOB PRIMARY KEY,
	n     INTEGER NOT NULL,
	bytes INTEGER NOT NULL,
	seen  INTEGER NOT NULL DEFAULT 0
);
PRAGMA user_version = 1;
`

// standings adds to the conversations whose they are. A release without it reads and
// writes a database that has it. Conversations from before it in which this device
// has said nothing are strangers', until a message comes from a contact.
const standings = `
ALTER TABLE conversations ADD COLUMN stranger INTEGER NOT NULL DEFAULT 0;
UPDATE conversations SET stranger = NOT EXISTS (SELECT 1 FROM messages m WHERE m.peer = conversations.peer AND m.mine = 1);
`

// Open opens the database in a file, or makes it, for this user alone. One that
// is damaged is moved aside, to path.damaged-TIME, and Note says so. The error
// matches ErrNewer where the database is of a newer release.
func Open(path string) (*Store, error) {
	s, err := open(path)
	if err == nil || !damaged(err) {
		return s, err
	}
	aside := path + ".damaged-" + time.Now().UTC().Format("20060102T150405.000")
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if mvErr := os.Rename(path+suffix, aside+suffix); mvErr != nil && !errors.Is(mvErr, os.ErrNotExist) {
			return nil, errors.Join(err, mvErr)
		}
	}
	s, again := open(path)
	if again != nil {
		return nil, errors.Join(err, again)
	}
	s.note = fmt.Sprintf("the chat's history was damaged (%v) and is now %s; a new one was begun", err, aside)
	return s, nil
}

// damaged tells a file that is no sound database from one that cannot be used
// now.
func damaged(err error) bool {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return errors.Is(err, errUnsound)
	}
	return e.Code()&0xff == sqlite3.SQLITE_CORRUPT || e.Code()&0xff == sqlite3.SQLITE_NOTADB
}

var errUnsound = errors.New("unsound")

func open(path string) (*Store, error) {
	// Made before sqlite makes it, which asks the umask for the mode.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("chat history: %w", err)
	}
	_ = f.Close()
	db, err := sql.Open("sqlite", "file:"+escapePath(path)+"?_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)&_pragma=synchronous(full)&_pragma=journal_size_limit(4194304)&_txlock=immediate")
	if err != nil {
		return nil, fmt.Errorf("chat history: %w", err)
	}
	db.SetMaxOpenConns(1) // one writer, and no busy errors within the process
	s := &Store{db: db, shares: shares()}
	if err := s.prepare(); err != nil {
		_ = db.Close()
		return nil, fmt.Errorf("chat history: %s: %w", path, err)
	}
	return s, nil
}

// escapePath has the path mean itself in a URI.
func escapePath(path string) string {
	return strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23").Replace(path)
}

func (s *Store) prepare() error {
	var version int
	if err := s.db.QueryRowContext(context.Background(), "PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	switch {
	case version > schemaVersion:
		return fmt.Errorf("%w (version %d, this one knows %d): use that one", ErrNewer, version, schemaVersion)
	case version == schemaVersion:
		var sound string
		if err := s.db.QueryRowContext(context.Background(), "PRAGMA quick_check(1)").Scan(&sound); err != nil {
			return err
		}
		if sound != "ok" {
			return fmt.Errorf("%w: %.100s", errUnsound, sound)
		}
		return s.migrate("SELECT count(*) FROM pragma_table_info('conversations') WHERE name = 'stranger'", standings)
	}
	return s.migrate("SELECT 0", schema+standings)
}

// migrate executes statements as one, unless a query says that they were before.
func (s *Store) migrate(done, statements string) error {
	return s.within(func(tx *sql.Tx) error {
		var n int
		if err := tx.QueryRowContext(context.Background(), done).Scan(&n); err != nil || n > 0 {
			return err
		}
		_, err := tx.ExecContext(context.Background(), statements)
		return err
	})
}

// within has do read and write all or nothing.
func (s *Store) within(do func(tx *sql.Tx) error) error {
	tx, err := s.db.BeginTx(context.Background(), nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	if err := do(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// Note says what Open had to do; "" for nothing.
func (s *Store) Note() string { return s.note }

// Close closes the database.
func (s *Store) Close() error { return s.db.Close() }

// CheckText tells why a text cannot be sent.
func CheckText(text string) error {
	switch {
	case text == "":
		return errors.New("a message of nothing")
	case len(text) > MaxText:
		return fmt.Errorf("a message of %d bytes: at most %d are sent (send a file)", len(text), MaxText)
	case !utf8.ValidString(text):
		return errors.New("a message that is not UTF-8")
	}
	return nil
}

// add stores a message, unless its id is there already: then added is false and
// the message is the one that is there. by is whose the conversation is if the
// message begins one; a member's message makes it a member's. What is too much of the
// conversation, and of its share, goes.
func (s *Store) add(m Message, by standing) (stored Message, added bool, err error) {
	m.At = m.At.Truncate(time.Millisecond)
	err = s.within(func(tx *sql.Tx) error {
		if m.Mine {
			var waiting int
			if err := tx.QueryRowContext(context.Background(), "SELECT count(*) FROM messages WHERE peer = ? AND mine = 1 AND mark < 2", m.Peer[:]).Scan(&waiting); err != nil {
				return err
			}
			if waiting >= MaxWaiting {
				return fmt.Errorf("%w: %d messages to device %s wait already", ErrFull, waiting, m.Peer.Short())
			}
		}
		by, err := s.begin(tx, m.Peer, by)
		if err != nil {
			return err
		}
		r, err := tx.ExecContext(context.Background(), "INSERT OR IGNORE INTO messages (peer, id, mine, text, at, mark) VALUES (?, ?, ?, ?, ?, ?)",
			m.Peer[:], m.ID[:], m.Mine, m.Text, m.At.UnixMilli(), m.Mark)
		if err != nil {
			return err
		}
		if n, err := r.RowsAffected(); err != nil || n == 0 {
			return err
		}
		added = true
		if m.Seq, err = r.LastInsertId(); err != nil {
			return err
		}
		if _, err := tx.ExecContext(context.Background(), "UPDATE conversations SET n = n + 1, bytes = bytes + ? WHERE peer = ?", len(m.Text), m.Peer[:]); err != nil {
			return err
		}
		if err := s.prune(tx, m.Peer, by); err != nil {
			return err
		}
		return s.thin(tx, by)
	})
	return m, added && err == nil, err
}

// mark changes what became of a message of this device.
func (s *Store) mark(seq int64, mark Mark, reason string) error {
	_, err := s.db.ExecContext(context.Background(), "UPDATE messages SET mark = ?, reason = ? WHERE seq = ? AND mine = 1", mark, reason, seq)
	return err
}

const columns = "seq, peer, id, mine, text, at, mark, reason"

// rows returns what a query finds, each row as read has it.
func rows[T any](s *Store, read func(*sql.Rows) (T, error), query string, args ...any) (out []T, err error) {
	found, err := s.db.QueryContext(context.Background(), query, args...)
	if err != nil {
		return nil, err
	}
	defer found.Close()
	for found.Next() {
		row, err := read(found)
		if err != nil {
			return nil, err
		}
		out = append(out, row)
	}
	return out, found.Err()
}

// readMessage reads a row of columns.
func readMessage(r *sql.Rows) (m Message, err error) {
	var peer, id []byte
	var at int64
	if err := r.Scan(&m.Seq, &peer, &id, &m.Mine, &m.Text, &at, &m.Mark, &m.Reason); err != nil {
		return m, err
	}
	if len(peer) != len(m.Peer) || len(id) != idLen {
		return m, fmt.Errorf("message %d: %w", m.Seq, errUnsound)
	}
	copy(m.Peer[:], peer)
	copy(m.ID[:], id)
	m.At = time.UnixMilli(at)
	return m, nil
}

// waiting returns the messages to a device that are not delivered, the oldest
// first, n at most.
func (s *Store) waiting(peer identity.DeviceID, n int) ([]Message, error) {
	return rows(s, readMessage, "SELECT "+columns+" FROM messages WHERE peer = ? AND mine = 1 AND mark < 2 ORDER BY seq LIMIT ?", peer[:], n)
}

// waitingFor returns the devices to which messages wait.
func (s *Store) waitingFor() ([]identity.DeviceID, error) {
	return rows(s, readPeer, "SELECT DISTINCT peer FROM messages WHERE mine = 1 AND mark < 2")
}

func readPeer(r *sql.Rows) (id identity.DeviceID, err error) {
	var b []byte
	err = r.Scan(&b)
	copy(id[:], b)
	return id, err
}

// History returns the n newest messages with a device whose Seq is below
// before, the oldest first; before 0 means all.
func (s *Store) History(peer identity.DeviceID, before int64, n int) ([]Message, error) {
	if before <= 0 {
		before = 1<<63 - 1
	}
	return rows(s, readMessage, "SELECT * FROM (SELECT "+columns+" FROM messages WHERE peer = ? AND seq < ? ORDER BY seq DESC LIMIT ?) ORDER BY seq", peer[:], before, min(max(n, 0), 1000))
}

// after returns the n oldest messages above a Seq, in its order.
func (s *Store) after(seq int64, n int) ([]Message, error) {
	return rows(s, readMessage, "SELECT "+columns+" FROM messages WHERE seq > ? ORDER BY seq LIMIT ?", seq, n)
}

// ends returns the Seq of the newest message, 0 without one, and the lowest one of
// a message that waits, above last without one.
func (s *Store) ends() (last, waiting int64, err error) {
	err = s.db.QueryRowContext(context.Background(), `SELECT n, coalesce((SELECT min(seq) FROM messages WHERE mine = 1 AND mark < 2), n + 1)
		FROM (SELECT coalesce(max(seq), 0) AS n FROM messages)`).Scan(&last, &waiting)
	return last, waiting, err
}

// Seen notes that the messages with a device up to seq were seen.
func (s *Store) Seen(peer identity.DeviceID, seq int64) error {
	_, err := s.db.ExecContext(context.Background(), "UPDATE conversations SET seen = max(seen, ?) WHERE peer = ?", seq, peer[:])
	return err
}

// Conversations returns all, the latest first.
func (s *Store) Conversations() ([]Conversation, error) {
	read := func(r *sql.Rows) (c Conversation, err error) {
		var peer []byte
		var last int64
		err = r.Scan(&peer, &last, &c.Unread)
		copy(c.Peer[:], peer)
		c.Last = time.UnixMilli(last)
		return c, err
	}
	return rows(s, read, `SELECT c.peer, coalesce((SELECT at FROM messages m WHERE m.peer = c.peer ORDER BY seq DESC LIMIT 1), 0) AS last,
		(SELECT count(*) FROM messages m WHERE m.peer = c.peer AND m.mine = 0 AND m.seq > c.seen) FROM conversations c ORDER BY last DESC`)
}
