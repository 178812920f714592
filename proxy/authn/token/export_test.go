package token

// NewMemoryAt makes a store whose last sequence number was the given one.
func NewMemoryAt(sequence int32) *Memory {
	m := NewMemory()
	m.counters[Sequences] = sequence
	return m
}
