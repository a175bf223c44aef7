//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io"
	"strconv"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"tokenwire/bench/load/internal/poll"
)

const (
	frameHead = 9
	// As large as windows need be for a reader that never stops: it is given back when half of it is used.
	streamWindow = 1 << 20
	lineWindow   = 64 << 20
	// What HTTP/2 begins with.
	firstWindow = 65535
	firstFrame  = 16384
)

// h2 is one HTTP/2 connection of many calls.
type h2 struct {
	*load
	fd      int
	framer  *http2.Framer
	decoder *hpack.Decoder
	headers []byte
	message []byte
	// rest is the beginning of a frame, source what the framer reads, out what is to be written.
	rest   []byte
	source source
	out    bytes.Buffer
	full   bool
	// streams are the calls by their number, queue those that are not sent.
	streams []*h2stream
	queue   []*call
	active  int
	// reading is the stream whose headers come.
	reading *h2stream
	status  string
	grpc    string
	ending  bool
	// What the server allows: streams, bytes on the connection and on a new stream, and in a frame.
	limit  int
	window int64
	first  int64
	frame  int
	taken  uint32
	ready  bool
	away   bool
	dead   bool
}

// source is what was read from the socket, for the framer.
type source struct {
	data []byte
}

func (s *source) Read(into []byte) (int, error) {
	if len(s.data) == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n := copy(into, s.data)
	s.data = s.data[n:]
	return n, nil
}

func newH2(l *load) (*h2, error) {
	fd, err := poll.Connect(l.port)
	if err != nil {
		return nil, err
	}
	c := &h2{load: l, fd: fd, limit: 100, window: firstWindow, first: firstWindow, frame: firstFrame}
	c.headers = requestHeaders(l.path, fmt.Sprintf("127.0.0.1:%d", l.port), l.headers)
	c.message = grpcMessage(l.body)
	c.framer = http2.NewFramer(&c.out, &c.source)
	c.framer.SetReuseFrames()
	c.decoder = hpack.NewDecoder(4096, c.field)
	if err := l.add(fd, c); err != nil {
		return nil, err
	}
	c.out.WriteString(http2.ClientPreface)
	_ = c.framer.WriteSettings(
		http2.Setting{ID: http2.SettingEnablePush, Val: 0},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: streamWindow},
	)
	_ = c.framer.WriteWindowUpdate(0, lineWindow-firstWindow)
	c.flush()
	return c, nil
}

// open sends a call, or keeps it until the server allows one more.
func (c *h2) open(one *call) {
	if c.dead || c.away {
		c.tally.ended(one, wasClosed, c.now)
		return
	}
	c.queue = append(c.queue, one)
	c.send()
	c.flush()
}

// send sends the calls that the server allows, and what of their requests it takes.
func (c *h2) send() {
	for len(c.queue) > 0 && c.active < c.limit && c.ready && !c.away {
		one := c.queue[0]
		c.queue = c.queue[1:]
		stream := &h2stream{call: one, id: uint32(2*len(c.streams) + 1), window: c.first, unsent: c.message}
		c.streams = append(c.streams, stream)
		c.active++
		c.tally.sent(one, c.look())
		_ = c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream.id, BlockFragment: c.headers, EndHeaders: true})
		c.push(stream)
	}
}

// push sends what a stream's window, the connection's and the size of a frame allow of a request.
func (c *h2) push(stream *h2stream) {
	for len(stream.unsent) > 0 {
		size := min(int64(len(stream.unsent)), int64(c.frame), stream.window, c.window)
		if size <= 0 {
			return
		}
		_ = c.framer.WriteData(stream.id, size == int64(len(stream.unsent)), stream.unsent[:size])
		stream.unsent = stream.unsent[size:]
		stream.window -= size
		c.window -= size
	}
}

func (c *h2) happened(events uint32) {
	if events&(poll.Read|poll.Lost) != 0 {
		c.read()
	}
	if !c.dead && (c.out.Len() > 0 || events&poll.Write != 0) {
		c.flush()
	}
}

func (c *h2) read() {
	for {
		n, err := poll.ReadSome(c.fd, c.input)
		if err == poll.Again {
			return
		}
		if err != nil || n == 0 {
			c.lose(wasClosed)
			return
		}
		c.tally.bytes += n
		c.look()
		if !c.take(c.input[:n]) {
			c.lose(wasGarbled)
			return
		}
		if n < len(c.input) {
			return
		}
	}
}

// take handles the frames that are whole and keeps the rest. It returns false if they are none of HTTP/2's.
func (c *h2) take(data []byte) bool {
	if len(c.rest) > 0 {
		c.rest = append(c.rest, data...)
		data = c.rest
	}
	for len(data) >= frameHead {
		size := frameHead + int(data[0])<<16 + int(data[1])<<8 + int(data[2])
		if len(data) < size {
			break
		}
		c.source.data = data[:size]
		frame, err := c.framer.ReadFrame()
		if err != nil || !c.handle(frame) {
			return false
		}
		data = data[size:]
	}
	c.rest = append(c.rest[:0], data...)
	return true
}

// lose ends the connection and every call on it.
func (c *h2) lose(reason string) {
	if c.dead {
		return
	}
	c.dead = true
	for _, stream := range c.streams {
		c.tally.ended(stream.call, reason, c.now)
	}
	for _, one := range c.queue {
		c.tally.ended(one, reason, c.now)
	}
	c.queue = nil
	c.remove(c.fd)
}

// stop cancels the calls that are open and closes the connection.
func (c *h2) stop() {
	for _, stream := range c.streams {
		if !stream.over {
			_ = c.framer.WriteRSTStream(stream.id, http2.ErrCodeCancel)
		}
	}
	c.flush()
	if !c.dead {
		c.dead = true
		c.remove(c.fd)
	}
}

// flush writes what is to be written, as far as the socket takes it.
func (c *h2) flush() {
	n, err := poll.WriteSome(c.fd, c.out.Bytes())
	if err != nil {
		c.lose(wasClosed)
		return
	}
	c.out.Next(n)
	if full := c.out.Len() > 0; full != c.full {
		c.full = full
		events := uint32(poll.Read)
		if full {
			events |= poll.Write
		}
		_ = c.poller.Change(c.fd, events)
	}
}

// field takes one field of a head or trailer.
func (c *h2) field(one hpack.HeaderField) {
	switch one.Name {
	case ":status":
		c.status = one.Value
	case "grpc-status":
		c.grpc = one.Value
	}
}

// headersEnd judges a head, or a trailer, that has come as a whole.
func (c *h2) headersEnd() {
	stream := c.reading
	c.reading = nil
	if stream == nil || stream.over {
		return
	}
	if c.status != "" && c.status != "200" {
		c.end(stream, "http "+c.status)
		return
	}
	if !c.ending {
		return
	}
	code, err := strconv.Atoi(c.grpc)
	if err != nil {
		// An end without a status, which gRPC calls UNKNOWN.
		code = 2
	}
	c.end(stream, status(code))
}

func (c *h2) end(stream *h2stream, reason string) {
	if !stream.over {
		c.tally.ended(stream.call, reason, c.now)
		stream.pending = nil
		c.active--
		c.send()
	}
}
