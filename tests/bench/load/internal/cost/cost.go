//go:build linux

// Package cost tells what a process has used, and keeps what it uses small.
package cost

import (
	"runtime"
	"runtime/debug"
	"syscall"
)

// Lean makes the runtime stay out of the way of one goroutine: nothing is collected before the heap holds a gibibyte,
// and there is one thread for Go code. Others, such as those that wait for signals, have their turn when the runtime
// interrupts the one, every ten milliseconds; were it tied to its thread, each time would be two more switches.
func Lean() {
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(1 << 30)
}

// CPUSeconds returns the user and system time of this process.
func CPUSeconds() float64 {
	var used syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &used) != nil {
		return 0
	}
	return float64(used.Utime.Nano()+used.Stime.Nano()) / 1e9
}
