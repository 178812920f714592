package dek

import (
	"sync"
	"time"

	"github.com/edekd/edekd/edek"
)

// entry is a DEK and what it was opened from. It is never copied, so that
// zeroing it leaves nothing behind.
type entry struct {
	hash       uint64
	prev, next *entry
	list       *list
	name       string
	born       time.Duration // on the cache's clock
	epoch      uint64
	edek       edek.EDEK
	dek        [edek.MaxDEKSize]byte
	size       uint8
}

// is compares all of an EDEK. It need not hide where the first difference is:
// EDEKs are no secrets.
func (e *entry) is(name string, other *edek.EDEK) bool { return e.edek == *other && e.name == name }

// shard holds some of the entries, in two queues: those that were asked for
// once, and those that were asked for again.
type shard struct {
	sync.Mutex
	entries     map[uint64]*entry
	once, again list
	bytes, room int64
}

func (s *shard) init(room int64) {
	s.entries, s.room = map[uint64]*entry{}, room
	s.once.init()
	s.again.init()
}

// touch notes that an entry was asked for again. Those may take four fifths of
// the room; beyond that the one not asked for the longest goes back into the
// other queue.
func (s *shard) touch(e *entry) {
	e.list.remove(e)
	s.again.push(e)
	for s.again.bytes > s.room/5*4 && s.again.oldest() != e {
		back := s.again.oldest()
		s.again.remove(back)
		s.once.push(back)
	}
}

// coldest is the next to go. There is one.
func (s *shard) coldest() *entry {
	if e := s.once.oldest(); e != nil {
		return e
	}
	return s.again.oldest()
}

// remove zeroes an entry. Nobody reads it: readers hold the lock.
func (s *shard) remove(e *entry) {
	delete(s.entries, e.hash)
	e.list.remove(e)
	s.bytes -= e.cost()
	clear(e.dek[:])
	e.size = 0
}

func (e *entry) cost() int64 { return entryBytes + int64(len(e.name)) }

// list is a ring of entries, the newest behind the root.
type list struct {
	root  entry
	bytes int64
}

func (l *list) init() { l.root.prev, l.root.next = &l.root, &l.root }

func (l *list) push(e *entry) {
	e.list, e.prev, e.next = l, &l.root, l.root.next
	e.prev.next, e.next.prev = e, e
	l.bytes += e.cost()
}

func (l *list) remove(e *entry) {
	e.prev.next, e.next.prev = e.next, e.prev
	e.list, e.prev, e.next = nil, nil, nil
	l.bytes -= e.cost()
}

func (l *list) oldest() *entry {
	if l.root.prev == &l.root {
		return nil
	}
	return l.root.prev
}
