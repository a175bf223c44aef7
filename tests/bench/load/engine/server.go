//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"

	"tokenwire/bench/load/internal/clock"
	"tokenwire/bench/load/internal/cost"
	"tokenwire/bench/load/internal/poll"
)

// Enough for some 250 tokens in one write at full speed.
const scratchBytes = 1 << 16

// server is the whole engine: every port, connection and stream of it belongs to one goroutine.
type server struct {
	model   string
	poller  *poll.Poller
	clock   *clock.Clock
	timer   *poll.Timer
	wake    *poll.Wake
	wheel   wheel
	paces   map[int]pace
	conns   []*conn
	scratch []byte
	input   []byte

	now      uint64
	text     [textBytes]byte
	tokens   uint64
	requests uint64
	running  int
}

func newServer(model string) (*server, error) {
	s := &server{
		model:   model,
		clock:   clock.New(),
		paces:   map[int]pace{},
		scratch: make([]byte, 0, scratchBytes+4096),
		input:   make([]byte, 1<<16),
	}
	var err error
	if s.poller, err = poll.New(); err != nil {
		return nil, err
	}
	if s.timer, err = poll.NewTimer(); err != nil {
		return nil, err
	}
	if s.wake, err = poll.NewWake(); err != nil {
		return nil, err
	}
	for _, fd := range []int{s.timer.FD, s.wake.FD} {
		if err := s.poller.Add(fd, poll.Read); err != nil {
			return nil, fmt.Errorf("epoll: %w", err)
		}
	}
	return s, nil
}

// listen opens a port whose streams are so fast, and returns it.
func (s *server) listen(port int, pace pace) (int, error) {
	fd, port, err := poll.Listen(port)
	if err != nil {
		return 0, err
	}
	s.paces[fd] = pace
	return port, s.poller.Add(fd, poll.Read)
}

// serve answers until it is woken.
func (s *server) serve() {
	for {
		for _, event := range s.poller.Wait(-1) {
			fd := int(event.Fd)
			if fd < len(s.conns) && s.conns[fd] != nil {
				s.happened(s.conns[fd], event.Events)
				continue
			}
			switch fd {
			case s.wake.FD:
				return
			case s.timer.FD:
				s.timer.Clear()
				s.turn()
			default:
				if pace, listens := s.paces[fd]; listens {
					s.accept(fd, pace)
				}
			}
		}
		ticking := int64(0)
		if s.wheel.waiting > 0 {
			ticking = stepMicros * 1000
		}
		s.timer.Run(ticking)
	}
}

func (s *server) accept(listener int, pace pace) {
	for {
		fd, err := poll.Accept(listener)
		if err != nil {
			return
		}
		if err := s.poller.Add(fd, poll.Read); err != nil {
			poll.Close(fd)
			continue
		}
		for fd >= len(s.conns) {
			s.conns = append(s.conns, nil)
		}
		s.conns[fd] = &conn{fd: fd, pace: pace}
	}
}

func (s *server) happened(c *conn, events uint32) {
	if events&poll.Lost != 0 {
		s.drop(c)
		return
	}
	if events&poll.Read != 0 && !s.read(c) {
		return
	}
	if events&poll.Write != 0 && s.flush(c) && len(c.out) == 0 && c.stream != nil && c.pace.periodMicros == 0 {
		s.pour(c)
	}
}

// turn writes the tokens that are due.
func (s *server) turn() {
	s.look()
	started := s.now
	s.wheel.turn(started, func(one *stream) {
		s.look()
		buffer := s.scratch[:0]
		for one.written < one.tokens && one.due <= float64(s.now) {
			buffer = s.token(one, buffer)
			one.due += one.conn.pace.periodMicros
		}
		s.wrote(one.conn, buffer)
		if !one.ended {
			s.wheel.put(one, started)
		}
	})
}

// pour writes as many tokens as the socket takes at once. The rest comes when it takes more.
func (s *server) pour(c *conn) {
	s.look()
	buffer := s.scratch[:0]
	for c.stream.written < c.stream.tokens && len(buffer) < scratchBytes {
		buffer = s.token(c.stream, buffer)
	}
	s.wrote(c, buffer)
}

// look takes the time, which is the text of all tokens until the next look.
func (s *server) look() {
	s.now = s.clock.Micros()
	writeDigits(s.text[:], s.now)
}

func (s *server) token(one *stream, buffer []byte) []byte {
	s.tokens++
	return one.appendToken(buffer, &s.text)
}

// wrote sends what a stream has written, and ends it after its last token.
func (s *server) wrote(c *conn, buffer []byte) {
	one := c.stream
	if one.written == one.tokens {
		buffer = one.appendClosing(buffer)
		s.end(c)
	}
	if s.send(c, buffer) && one.ended {
		s.goOn(c)
	}
}

// begin starts a stream.
func (s *server) begin(c *conn, kind dialect, a *asked) {
	c.stream = newStream(c, kind, a)
	s.running++
	if !s.send(c, c.stream.head()) {
		return
	}
	if c.pace.periodMicros == 0 {
		if len(c.out) == 0 {
			s.pour(c)
		}
		return
	}
	now := s.clock.Micros()
	c.stream.due = c.pace.first(now, rand.Float64())
	s.wheel.put(c.stream, now)
}

func (s *server) end(c *conn) {
	if c.stream != nil {
		c.stream.ended = true
		c.stream = nil
		s.running--
	}
}

func (s *server) cost() []byte {
	seconds := cost.CPUSeconds()
	each := 0.0
	if s.tokens > 0 {
		each = seconds * 1e6 / float64(s.tokens)
	}
	line, _ := json.Marshal(map[string]any{
		"cpu_seconds":  seconds,
		"tokens":       s.tokens,
		"requests":     s.requests,
		"running":      s.running,
		"us_per_token": each,
	})
	return line
}
