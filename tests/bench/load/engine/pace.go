package main

// How far apart two looks at the wheel are, and so how late a token is at most.
const stepMicros = 1000

// Slots of the wheel; a slower stream goes around more than once.
const slots = 4096

// pace is how fast the streams of a port are.
type pace struct {
	// periodMicros is the time between two tokens of a stream; 0: none.
	periodMicros float64
	// together: all streams tick at the same moments.
	together bool
}

func newPace(rate float64, together bool) pace {
	if rate == 0 {
		return pace{}
	}
	return pace{periodMicros: 1e6 / rate, together: together}
}

// first returns when a stream that begins now writes its first token.
//
// Streams that do not tick together begin anywhere in a period: random is from 0 up to 1.
func (p pace) first(now uint64, random float64) float64 {
	if !p.together {
		return float64(now) + p.periodMicros*random
	}
	return float64(uint64(float64(now)/p.periodMicros)+1) * p.periodMicros
}

// wheel holds the streams that wait for their next token, each in the slot of the step at which it is due.
type wheel struct {
	slots [slots]*stream
	// step is the last one that was looked at.
	step uint64
	// waiting counts the streams in the slots, ended ones included.
	waiting int
}

// put adds a stream, which must not be in a slot.
func (w *wheel) put(s *stream, now uint64) {
	if w.waiting == 0 {
		w.step = now / stepMicros
	}
	step := (uint64(s.due) + stepMicros - 1) / stepMicros
	step = max(step, w.step+1)
	slot := &w.slots[step%slots]
	s.next, *slot = *slot, s
	w.waiting++
}

// turn looks at the steps up to now, and calls `due` for each stream of which a token is due. That one puts it again if
// it goes on.
func (w *wheel) turn(now uint64, due func(*stream)) {
	last := now / stepMicros
	for behind := 0; w.step < last && w.waiting > 0 && behind < slots; behind++ {
		w.step++
		slot := &w.slots[w.step%slots]
		one := *slot
		*slot = nil
		for one != nil {
			next := one.next
			one.next = nil
			w.waiting--
			switch {
			case one.ended:
			case one.due > float64(now):
				w.put(one, now)
			default:
				due(one)
			}
			one = next
		}
	}
	w.step = last
}
