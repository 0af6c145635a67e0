package quota

import "context"

// Queue keeps what members and strangers have sent until its reader comes. Both
// have room of their own, and what members have sent goes first. Make one with
// NewQueue; its methods may be called concurrently.
type Queue[T any] struct{ lanes [pools]chan T }

// NewQueue returns a queue with so many places for members and for strangers.
func NewQueue[T any](member, stranger int) *Queue[T] {
	return &Queue[T]{[pools]chan T{make(chan T, member), make(chan T, stranger)}}
}

// Put adds what a member has sent, or returns false where the members' places are
// taken. It does not block.
func (q *Queue[T]) Put(v T) bool { return q.put(v, members) }

// PutStranger is Put for strangers.
func (q *Queue[T]) PutStranger(v T) bool { return q.put(v, strangers) }

func (q *Queue[T]) put(v T, in pool) bool {
	select {
	case q.lanes[in] <- v:
		return true
	default:
		return false
	}
}

// Take removes and returns the next value. It blocks until there is one, or ctx
// ends, or end is closed; then it returns false, though not before all that waits
// was taken. A nil end never closes.
func (q *Queue[T]) Take(ctx context.Context, end <-chan struct{}) (v T, ok bool) {
	for _, lane := range q.lanes {
		select {
		case v = <-lane:
			return v, true
		default:
		}
	}
	select {
	case v = <-q.lanes[members]:
		return v, true
	case v = <-q.lanes[strangers]:
		return v, true
	case <-ctx.Done():
	case <-end:
	}
	return v, false
}

// Len returns how many values wait.
func (q *Queue[T]) Len() int { return len(q.lanes[members]) + len(q.lanes[strangers]) }
