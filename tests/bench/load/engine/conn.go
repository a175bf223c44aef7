//go:build linux

package main

import (
	"tokenwire/bench/load/internal/poll"
)

// conn is one connection of a client.
type conn struct {
	fd   int
	pace pace
	// in is what came and was not answered yet, out what the socket did not take.
	in, out []byte
	stream  *stream
	// closes: the connection ends when all is written.
	closes bool
	// answering: the request at the beginning of `in` is being answered.
	answering bool
	waiting   bool
	dropped   bool
}

// read takes what a client has sent and answers it. It returns whether the connection is still there.
func (s *server) read(c *conn) bool {
	for {
		n, err := poll.ReadSome(c.fd, s.input)
		if err == poll.Again {
			break
		}
		if err != nil || n == 0 {
			s.drop(c)
			return false
		}
		c.in = append(c.in, s.input[:n]...)
		if n < len(s.input) {
			break
		}
	}
	s.goOn(c)
	return !c.dropped
}

// goOn answers the requests that have come, one after the other.
func (s *server) goOn(c *conn) {
	if c.answering {
		return
	}
	for c.stream == nil && !c.closes && !c.dropped && len(c.in) > 0 {
		one, taken, err := parseRequest(c.in)
		if err != nil {
			s.drop(c)
			return
		}
		if taken == 0 {
			return
		}
		s.requests++
		c.closes = one.closes
		c.answering = true
		s.answer(c, one)
		c.answering = false
		c.in = c.in[:copy(c.in, c.in[taken:])]
	}
	if c.closes && c.stream == nil && len(c.out) == 0 && !c.dropped {
		s.drop(c)
	}
}

// send writes to a client; what the socket does not take is kept. It returns whether the connection is still there.
func (s *server) send(c *conn, data []byte) bool {
	if len(c.out) == 0 {
		n, err := poll.WriteSome(c.fd, data)
		if err != nil {
			s.drop(c)
			return false
		}
		data = data[n:]
	}
	if len(data) > 0 {
		c.out = append(c.out, data...)
	}
	// At full speed the socket tells when it takes the next tokens.
	s.want(c, len(c.out) > 0 || (c.stream != nil && c.pace.periodMicros == 0))
	return true
}

// flush writes what was kept. It returns whether the connection is still there.
func (s *server) flush(c *conn) bool {
	n, err := poll.WriteSome(c.fd, c.out)
	if err != nil {
		s.drop(c)
		return false
	}
	c.out = c.out[:copy(c.out, c.out[n:])]
	if len(c.out) == 0 {
		s.want(c, c.stream != nil && c.pace.periodMicros == 0)
		s.goOn(c)
	}
	return !c.dropped
}

func (s *server) want(c *conn, writing bool) {
	if c.waiting == writing {
		return
	}
	c.waiting = writing
	events := uint32(poll.Read)
	if writing {
		events |= poll.Write
	}
	_ = s.poller.Change(c.fd, events)
}

// drop ends a connection, and what was written on it.
func (s *server) drop(c *conn) {
	if c.dropped {
		return
	}
	c.dropped = true
	s.end(c)
	s.conns[c.fd] = nil
	poll.Close(c.fd)
}
