//go:build linux

package clock

import "testing"

func TestTheClockIsTheKernels(t *testing.T) {
	c := New()
	for range 1000 {
		before := kernelNanoseconds() / 1000
		now := int64(c.Micros())
		after := kernelNanoseconds() / 1000
		// The difference was measured to less than a microsecond, if nothing came in between.
		if now < before-50 || now > after+50 {
			t.Fatalf("%d is not between %d and %d", now, before, after)
		}
	}
}
