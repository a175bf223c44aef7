//go:build linux

package main

import (
	"fmt"
	"os"
	"time"

	"tokenwire/bench/load/internal/clock"
	"tokenwire/bench/load/internal/poll"
)

// How long connections may take until they can be used.
const settleTime = 5 * time.Second

// line is one connection.
type line interface {
	// happened reads and writes what can be.
	happened(events uint32)
	// stop ends it, and the calls on it that are open.
	stop()
}

// load is one measurement: all its connections belong to one goroutine.
type load struct {
	*options
	poller *poll.Poller
	clock  *clock.Clock
	tally  *tally
	lines  []line
	shared []*h2
	calls  []*call
	input  []byte
	now    uint64
	// held is how many calls were open when there was nothing more to wait for.
	held int
}

// measure opens the streams, waits for their ends, and returns what was counted.
func measure(asked *options) (*result, error) {
	l := &load{options: asked, clock: clock.New(), tally: newTally(asked.tokens), input: make([]byte, 1<<18)}
	var err error
	if l.poller, err = poll.New(); err != nil {
		return nil, err
	}
	began := l.clock.Micros()
	if err := l.connect(); err != nil {
		return nil, err
	}
	l.run(began + uint64(l.most.Microseconds()))
	if l.tally.failures[notConnected] == l.streams {
		return nil, fmt.Errorf("port %d takes no connection", l.port)
	}
	for _, one := range l.lines {
		if one != nil {
			one.stop()
		}
	}
	return l.result(), nil
}

// connect opens the connections that calls share.
func (l *load) connect() error {
	if !l.grpc {
		return nil
	}
	for range min(l.connections, l.streams) {
		one, err := newH2(l)
		if err != nil {
			return err
		}
		l.shared = append(l.shared, one)
	}
	limit := l.clock.Micros() + uint64(settleTime.Microseconds())
	for {
		ready, dead := 0, 0
		for _, one := range l.shared {
			if one.dead {
				dead++
			} else if one.ready {
				ready++
			}
		}
		if ready > 0 && ready+dead == len(l.shared) {
			return nil
		}
		if l.look() > limit || dead == len(l.shared) {
			return fmt.Errorf("port %d does not speak HTTP/2", l.port)
		}
		l.turn(10)
	}
}

// run opens calls when it is their time and reads answers, until all have ended or the time is over.
func (l *load) run(limit uint64) {
	began := l.look()
	heldUntil := uint64(0)
	for {
		now := l.look()
		next := limit
		for len(l.calls) < l.streams {
			if due := began + l.due(len(l.calls)); due > now {
				next = min(next, due)
				break
			}
			l.open()
		}
		open := len(l.calls) - l.tally.done - l.tally.failed()
		if len(l.calls) == l.streams {
			if open == 0 {
				return
			}
			if l.hold > 0 && heldUntil == 0 && l.tally.waiting == 0 && l.allSent() {
				heldUntil = now + uint64(l.hold.Microseconds())
				fmt.Fprintln(os.Stderr, "held")
			}
		}
		if heldUntil > 0 {
			if now >= heldUntil {
				l.held = open
				return
			}
			next = min(next, heldUntil)
		}
		if now >= limit {
			for _, one := range l.calls {
				l.tally.ended(one, tookLong, now)
			}
			for len(l.calls) < l.streams {
				l.calls = append(l.calls, &call{})
				l.tally.ended(l.calls[len(l.calls)-1], tookLong, now)
			}
			return
		}
		l.turn(int((next-now)/1000) + 1)
	}
}

// due returns when a call is opened, in microseconds from the beginning.
func (l *load) due(index int) uint64 {
	if l.ramp <= 0 {
		return 0
	}
	return uint64(float64(index) * 1e6 / l.ramp)
}

func (l *load) open() {
	one := &call{}
	l.calls = append(l.calls, one)
	if l.grpc {
		l.shared[(len(l.calls)-1)%len(l.shared)].open(one)
		return
	}
	openSSE(l, one)
}

func (l *load) allSent() bool {
	for _, one := range l.calls {
		if one.sent == 0 && !one.over {
			return false
		}
	}
	return true
}

// turn waits for so many milliseconds at most, and handles what has happened.
func (l *load) turn(milliseconds int) {
	for _, event := range l.poller.Wait(milliseconds) {
		if one := l.lines[event.Fd]; one != nil {
			one.happened(event.Events)
		}
	}
}

// look takes the time.
func (l *load) look() uint64 {
	l.now = l.clock.Micros()
	return l.now
}

// add begins to wait for a connection.
func (l *load) add(fd int, one line) error {
	for fd >= len(l.lines) {
		l.lines = append(l.lines, nil)
	}
	l.lines[fd] = one
	return l.poller.Add(fd, poll.Read)
}

// remove closes a connection.
func (l *load) remove(fd int) {
	l.lines[fd] = nil
	poll.Close(fd)
}
