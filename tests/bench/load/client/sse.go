//go:build linux

package main

import (
	"bytes"
	"fmt"
	"strings"

	"tokenwire/bench/load/internal/poll"
)

// sse is one call over a connection of its own: OpenAI's API, or one in its shape.
type sse struct {
	*load
	*call
	fd       int
	unsent   []byte
	full     bool
	response response
	events   events
	// done: the stream's terminator came; reason says why the call failed, as far as that is known before its end.
	done   bool
	reason string
	dead   bool
}

// openSSE connects and sends a call.
func openSSE(l *load, one *call) {
	fd, err := poll.Connect(l.port)
	if err != nil {
		l.tally.ended(one, notConnected, l.now)
		return
	}
	c := &sse{load: l, call: one, fd: fd, unsent: l.sseRequest()}
	c.events = events{key: contentKey(l.path), told: c.told}
	if err := l.add(fd, c); err != nil {
		l.tally.ended(one, notConnected, l.now)
		poll.Close(fd)
		return
	}
	l.tally.sent(one, l.look())
	c.flush()
}

// sseRequest returns the request of every call.
func (l *load) sseRequest() []byte {
	var head strings.Builder
	fmt.Fprintf(&head, "POST %s HTTP/1.1\r\nhost: 127.0.0.1:%d\r\ncontent-type: application/json\r\n"+
		"accept: text/event-stream\r\ncontent-length: %d\r\n", l.path, l.port, len(l.body))
	for _, one := range l.headers {
		fmt.Fprintf(&head, "%s: %s\r\n", one[0], one[1])
	}
	head.WriteString("\r\n")
	return append([]byte(head.String()), l.body...)
}

func (c *sse) happened(events uint32) {
	if len(c.unsent) > 0 && events&poll.Write != 0 {
		c.flush()
	}
	if !c.dead && events&(poll.Read|poll.Lost) != 0 {
		c.read()
	}
}

func (c *sse) read() {
	for !c.dead {
		n, err := poll.ReadSome(c.fd, c.input)
		if err == poll.Again {
			return
		}
		c.look()
		if err != nil || n == 0 {
			c.response.closed()
			c.end()
			return
		}
		c.tally.bytes += n
		c.response.feed(c.input[:n], c.events.feed)
		if c.response.state >= atEnd {
			c.end()
			return
		}
		if n < len(c.input) {
			return
		}
	}
}

// told takes one event of the stream: the text in it, if it has one.
func (c *sse) told(payload, text []byte, found bool) {
	if c.response.status != 200 {
		return
	}
	switch {
	case bytes.Equal(payload, terminator):
		c.done = true
		return
	case found:
		c.tally.text(c.call, text, c.now)
	case bytes.Contains(payload, []byte(`"error":{`)) || bytes.HasPrefix(payload, []byte(`{"error"`)):
		c.reason = hadError
	}
	c.tally.messages++
}

// end judges the call when its answer is over.
func (c *sse) end() {
	reason := c.reason
	switch {
	case c.response.status != 0 && c.response.status != 200:
		reason = status(c.response.status)
	case reason == "" && (c.response.state == broken || !c.done):
		reason = wasClosed
	}
	c.tally.ended(c.call, reason, c.now)
	c.stop()
}

// stop closes the connection.
func (c *sse) stop() {
	if !c.dead {
		c.dead = true
		c.remove(c.fd)
	}
}

func (c *sse) flush() {
	n, err := poll.WriteSome(c.fd, c.unsent)
	if err != nil {
		c.response.closed()
		c.end()
		return
	}
	c.unsent = c.unsent[n:]
	if full := len(c.unsent) > 0; full != c.full {
		c.full = full
		events := uint32(poll.Read)
		if full {
			events |= poll.Write
		}
		_ = c.poller.Change(c.fd, events)
	}
}
