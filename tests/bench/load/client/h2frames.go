//go:build linux

package main

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/net/http2"
)

const (
	messageHead     = 5
	maxMessageBytes = 64 << 20
)

// h2stream is one call on an HTTP/2 connection.
type h2stream struct {
	*call
	id uint32
	// unsent is what is left of the request, window how much of it the server takes.
	unsent []byte
	window int64
	// pending is the beginning of a message, taken what was read since the window was last given back.
	pending []byte
	taken   uint32
}

// grpcMessage returns a message as it goes over the wire.
func grpcMessage(body []byte) []byte {
	framed := make([]byte, messageHead, messageHead+len(body))
	binary.BigEndian.PutUint32(framed[1:], uint32(len(body)))
	return append(framed, body...)
}

// handle takes one frame. It returns false if it says nothing that makes sense.
func (c *h2) handle(frame http2.Frame) bool {
	switch one := frame.(type) {
	case *http2.DataFrame:
		return c.data(one)
	case *http2.HeadersFrame:
		c.reading, c.status, c.grpc, c.ending = c.stream(one.StreamID), "", "", one.StreamEnded()
		return c.fragment(one.HeaderBlockFragment(), one.HeadersEnded())
	case *http2.ContinuationFrame:
		return c.fragment(one.HeaderBlockFragment(), one.HeadersEnded())
	case *http2.SettingsFrame:
		if !one.IsAck() {
			c.settings(one)
		}
	case *http2.PingFrame:
		if !one.IsAck() {
			_ = c.framer.WritePing(true, one.Data)
		}
	case *http2.WindowUpdateFrame:
		c.widen(one)
	case *http2.RSTStreamFrame:
		if stream := c.stream(one.StreamID); stream != nil {
			c.end(stream, fmt.Sprintf("reset %d", one.ErrCode))
		}
	case *http2.GoAwayFrame:
		c.leave(one.LastStreamID)
	}
	return true
}

func (c *h2) stream(id uint32) *h2stream {
	if place := int(id / 2); id%2 == 1 && place < len(c.streams) {
		return c.streams[place]
	}
	return nil
}

// data counts the tokens of a frame, and gives back the window that it took.
func (c *h2) data(frame *http2.DataFrame) bool {
	size := frame.Length
	if c.taken += size; c.taken >= lineWindow/2 {
		_ = c.framer.WriteWindowUpdate(0, c.taken)
		c.taken = 0
	}
	stream := c.stream(frame.StreamID)
	if stream == nil || stream.over {
		return true
	}
	if stream.taken += size; stream.taken >= streamWindow/2 && !frame.StreamEnded() {
		_ = c.framer.WriteWindowUpdate(stream.id, stream.taken)
		stream.taken = 0
	}
	if !c.messages(stream, frame.Data()) {
		c.end(stream, wasGarbled)
		return true
	}
	if frame.StreamEnded() {
		c.end(stream, status(2))
	}
	return true
}

// messages reads those that are whole and keeps the rest. It returns false if there is one that cannot be read.
func (c *h2) messages(stream *h2stream, data []byte) bool {
	if len(stream.pending) > 0 {
		stream.pending = append(stream.pending, data...)
		data = stream.pending
	}
	for len(data) >= messageHead {
		size := binary.BigEndian.Uint32(data[1:])
		if data[0] != 0 || size > maxMessageBytes {
			return false
		}
		if len(data) < messageHead+int(size) {
			break
		}
		text, fine := eventText(data[messageHead : messageHead+size])
		if !fine {
			return false
		}
		c.tally.messages++
		c.tally.text(stream.call, text, c.now)
		data = data[messageHead+size:]
	}
	stream.pending = append(stream.pending[:0], data...)
	return true
}

func (c *h2) fragment(block []byte, last bool) bool {
	if _, err := c.decoder.Write(block); err != nil {
		return false
	}
	if last {
		if c.decoder.Close() != nil {
			return false
		}
		c.headersEnd()
	}
	return true
}

func (c *h2) settings(frame *http2.SettingsFrame) {
	if !c.ready {
		// Without a word of it, as many as one likes.
		c.limit = 1 << 30
	}
	_ = frame.ForeachSetting(func(one http2.Setting) error {
		switch one.ID {
		case http2.SettingMaxConcurrentStreams:
			c.limit = int(one.Val)
		case http2.SettingMaxFrameSize:
			c.frame = int(one.Val)
		case http2.SettingInitialWindowSize:
			for _, stream := range c.streams {
				stream.window += int64(one.Val) - c.first
			}
			c.first = int64(one.Val)
		}
		return nil
	})
	_ = c.framer.WriteSettingsAck()
	c.ready = true
	c.pushAll()
	c.send()
}

func (c *h2) widen(frame *http2.WindowUpdateFrame) {
	if frame.StreamID == 0 {
		c.window += int64(frame.Increment)
		c.pushAll()
	} else if stream := c.stream(frame.StreamID); stream != nil {
		stream.window += int64(frame.Increment)
		c.push(stream)
	}
}

func (c *h2) pushAll() {
	for _, stream := range c.streams {
		if !stream.over {
			c.push(stream)
		}
	}
}

// leave ends the calls that the server says it has not taken, and sends it no more.
func (c *h2) leave(last uint32) {
	c.away = true
	for _, stream := range c.streams {
		if stream.id > last {
			c.end(stream, wasClosed)
		}
	}
	for _, one := range c.queue {
		c.tally.ended(one, wasClosed, c.now)
	}
	c.queue = nil
}
