package record

// blocks are up to max values of a type without pointers, made as they are needed and used again.
type blocks[T any] struct {
	max    int
	made   [][]T
	taken  int     // values ever taken out of a block for the first time
	unused []int32 // given back
}

const (
	blockBits = 10
	blockSize = 1 << blockBits
	none      = int32(-1) // no value's index
)

// take answers the index of a zero value; false if there are max already.
func (b *blocks[T]) take() (int32, bool) {
	if n := len(b.unused); n > 0 {
		i := b.unused[n-1]
		b.unused = b.unused[:n-1]
		return i, true
	}
	if b.taken == b.max {
		return none, false
	}
	if b.taken == len(b.made)*blockSize {
		b.made = append(b.made, make([]T, min(blockSize, b.max-b.taken)))
	}
	b.taken++
	return int32(b.taken - 1), true
}

func (b *blocks[T]) at(i int32) *T { return &b.made[i>>blockBits][i&(blockSize-1)] }

// giveBack makes the value zero, and free for the next.
func (b *blocks[T]) giveBack(i int32) {
	clear(b.made[i>>blockBits][i&(blockSize-1) : i&(blockSize-1)+1])
	b.unused = append(b.unused, i)
}
