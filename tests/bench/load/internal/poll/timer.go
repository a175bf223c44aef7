//go:build linux

package poll

import (
	"fmt"
	"syscall"
	"unsafe"
)

const nonblocking = syscall.O_NONBLOCK | syscall.O_CLOEXEC

// Timer is a descriptor that becomes readable again and again.
type Timer struct {
	FD    int
	armed bool
}

type interval struct {
	every, first syscall.Timespec
}

// NewTimer returns a timer that does not run.
func NewTimer() (*Timer, error) {
	const monotonic = 1
	fd, _, err := syscall.RawSyscall(syscall.SYS_TIMERFD_CREATE, monotonic, nonblocking, 0)
	if err != 0 {
		return nil, fmt.Errorf("timerfd: %w", err)
	}
	return &Timer{FD: int(fd)}, nil
}

// Run starts the timer with that many nanoseconds between two ticks; 0 stops it.
func (t *Timer) Run(nanoseconds int64) {
	if (nanoseconds > 0) == t.armed {
		return
	}
	t.armed = nanoseconds > 0
	step := syscall.NsecToTimespec(nanoseconds)
	set := interval{every: step, first: step}
	syscall.RawSyscall6(syscall.SYS_TIMERFD_SETTIME, uintptr(t.FD), 0, uintptr(unsafe.Pointer(&set)), 0, 0, 0)
}

// Clear takes note of the ticks that were, so that the descriptor is no longer readable.
func (t *Timer) Clear() {
	var ticks [8]byte
	_, _ = ReadSome(t.FD, ticks[:])
}

// Wake is a pair of descriptors by which another goroutine wakes the one that waits.
type Wake struct {
	FD   int
	into int
}

// NewWake returns one.
func NewWake() (*Wake, error) {
	var ends [2]int
	if err := syscall.Pipe2(ends[:], nonblocking); err != nil {
		return nil, fmt.Errorf("pipe: %w", err)
	}
	return &Wake{FD: ends[0], into: ends[1]}, nil
}

// Up wakes.
func (w *Wake) Up() {
	_, _ = syscall.Write(w.into, []byte{0})
}
