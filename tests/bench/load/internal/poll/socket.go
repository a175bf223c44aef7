//go:build linux

package poll

import (
	"fmt"
	"syscall"
)

const streamSocket = syscall.SOCK_STREAM | syscall.SOCK_CLOEXEC

// Listen returns a socket that listens on a port of 127.0.0.1, and the port, which the kernel chooses for 0.
func Listen(port int) (int, int, error) {
	fd, err := syscall.Socket(syscall.AF_INET, streamSocket|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return 0, 0, fmt.Errorf("socket: %w", err)
	}
	_ = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
	if err := syscall.Bind(fd, loopback(port)); err != nil {
		return 0, 0, fmt.Errorf("port %d: %w", port, err)
	}
	if err := syscall.Listen(fd, 4096); err != nil {
		return 0, 0, fmt.Errorf("port %d: %w", port, err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		return 0, 0, fmt.Errorf("port %d: %w", port, err)
	}
	return fd, name.(*syscall.SockaddrInet4).Port, nil
}

// Accept returns the next connection of a listening socket; Again if there is none now.
func Accept(listener int) (int, error) {
	fd, _, err := syscall.Accept4(listener, syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
	if err != nil {
		return 0, err
	}
	_ = syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
	return fd, nil
}

// Connect returns a connection to a port of 127.0.0.1. It waits for it: on the same machine that is microseconds.
func Connect(port int) (int, error) {
	fd, err := syscall.Socket(syscall.AF_INET, streamSocket, 0)
	if err != nil {
		return 0, fmt.Errorf("socket: %w", err)
	}
	if err := syscall.Connect(fd, loopback(port)); err != nil {
		_ = syscall.Close(fd)
		return 0, fmt.Errorf("port %d: %w", port, err)
	}
	_ = syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
	if err := syscall.SetNonblock(fd, true); err != nil {
		_ = syscall.Close(fd)
		return 0, fmt.Errorf("port %d: %w", port, err)
	}
	return fd, nil
}

// Close closes a descriptor; nobody waits for it any more.
func Close(fd int) {
	_ = syscall.Close(fd)
}

func loopback(port int) *syscall.SockaddrInet4 {
	return &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}
}
