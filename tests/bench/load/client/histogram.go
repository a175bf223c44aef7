package main

import "math/bits"

const (
	// Below this, every microsecond counts apart; above, a thousandth.
	exactMicros = 1 << 16
	parts       = 1 << 10
	// A shift of 6 makes exactMicros the first of the parts.
	firstShift = 6
	shifts     = 26
)

// histogram counts microseconds, so that a percentile costs nothing while they come.
type histogram struct {
	counts [exactMicros + shifts*parts]uint64
	total  uint64
	most   uint64
}

// add counts one.
func (h *histogram) add(micros uint64) {
	h.total++
	h.most = max(h.most, micros)
	if micros < exactMicros {
		h.counts[micros]++
		return
	}
	shift := bits.Len64(micros) - 11
	place := exactMicros + (shift-firstShift)*parts + int(micros>>shift) - parts
	h.counts[min(place, len(h.counts)-1)]++
}

// percentile returns the least figure that so large a share is not above; 0 if there is none.
func (h *histogram) percentile(share float64) uint64 {
	if h.total == 0 {
		return 0
	}
	rank := uint64(share*float64(h.total-1)) + 1
	for place, count := range h.counts {
		if count >= rank {
			return min(micros(place), h.most)
		}
		rank -= count
	}
	return h.most
}

// micros returns what is counted at a place, from the middle of its part.
func micros(place int) uint64 {
	if place < exactMicros {
		return uint64(place)
	}
	place -= exactMicros
	shift := place/parts + firstShift
	return uint64(parts+place%parts)<<shift + 1<<(shift-1)
}
