//go:build linux

// Package poll waits for sockets and reads and writes them, without the runtime's poller and scheduler in between.
//
// One goroutine holds its thread and sleeps in the kernel itself. With the runtime's own poller each wake-up costs
// several microseconds, more than all the rest that is done for a token here.
package poll

import (
	"fmt"
	"syscall"
	"unsafe"
)

// What can be waited for.
const (
	Read  = syscall.EPOLLIN
	Write = syscall.EPOLLOUT
	Lost  = syscall.EPOLLERR | syscall.EPOLLHUP
)

// Again says that a socket takes or has nothing now.
const Again = syscall.EAGAIN

// Poller waits for many descriptors at once.
type Poller struct {
	fd     int
	events [512]syscall.EpollEvent
}

// New returns a poller that waits for nothing yet.
func New() (*Poller, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return &Poller{fd: fd}, nil
}

// Add begins to wait for a descriptor.
func (p *Poller) Add(fd int, want uint32) error {
	event := syscall.EpollEvent{Events: want, Fd: int32(fd)}
	return syscall.EpollCtl(p.fd, syscall.EPOLL_CTL_ADD, fd, &event)
}

// Change waits for something else of a descriptor.
func (p *Poller) Change(fd int, want uint32) error {
	event := syscall.EpollEvent{Events: want, Fd: int32(fd)}
	return syscall.EpollCtl(p.fd, syscall.EPOLL_CTL_MOD, fd, &event)
}

// Wait returns what has happened; nothing after so many milliseconds, or when a signal came. -1 waits without a limit.
// What it returns is valid until the next call.
func (p *Poller) Wait(milliseconds int) []syscall.EpollEvent {
	n, _, err := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(p.fd),
		uintptr(unsafe.Pointer(&p.events[0])), uintptr(len(p.events)), uintptr(milliseconds), 0, 0)
	if err != 0 {
		return nil
	}
	return p.events[:n]
}

// ReadSome reads what a socket has. 0 without an error: the other side has closed it.
func ReadSome(fd int, into []byte) (int, error) {
	n, _, err := syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&into[0])), uintptr(len(into)))
	if err != 0 {
		return 0, err
	}
	return int(n), nil
}

// WriteSome writes what a socket takes, which may be nothing.
func WriteSome(fd int, data []byte) (int, error) {
	if len(data) == 0 {
		return 0, nil
	}
	n, _, err := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&data[0])), uintptr(len(data)))
	switch err {
	case 0:
		return int(n), nil
	case syscall.EAGAIN, syscall.EINTR:
		return 0, nil
	}
	return 0, err
}
