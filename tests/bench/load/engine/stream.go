package main

import (
	"fmt"
	"math/rand/v2"
	"time"
)

const (
	streamHead = "HTTP/1.1 200 OK\r\ndate: %s\r\nserver: uvicorn\r\ncontent-type: text/event-stream; charset=utf-8\r\n" +
		"transfer-encoding: chunked\r\n"
	// As HTTP has it; always UTC.
	dateFormat = "Mon, 02 Jan 2006 15:04:05 GMT"
)

// stream is one answer that is being written.
type stream struct {
	conn   *conn
	answer *answer
	plain  *template
	// tokens is how many there will be, written how many there were.
	tokens  int
	written int
	ended   bool
	// due is when the next token comes, in microseconds; next is the stream behind it in the wheel's slot.
	due  float64
	next *stream
}

func newStream(c *conn, kind dialect, a *asked) *stream {
	one := newAnswer(kind, a)
	return &stream{
		conn:   c,
		answer: one,
		tokens: a.tokens,
		plain:  newTemplate([]byte(one.token(false, false))),
	}
}

func newAnswer(kind dialect, a *asked) *answer {
	return &answer{kind: kind, asked: a, id: answerID(kind, a), created: time.Now().Unix()}
}

func answerID(kind dialect, a *asked) string {
	switch {
	case kind == generate && a.RID != "":
		return a.RID
	case kind == generate:
		return fmt.Sprintf("%016x%016x", rand.Uint64(), rand.Uint64())
	case kind == chat:
		return fmt.Sprintf("chatcmpl-%016x", rand.Uint64())
	}
	return fmt.Sprintf("cmpl-%016x", rand.Uint64())
}

// head returns the answer's head and what comes before its first token.
func (s *stream) head() []byte {
	head := fmt.Appendf(nil, streamHead, time.Unix(s.answer.created, 0).UTC().Format(dateFormat))
	if s.conn.closes {
		head = append(head, "connection: close\r\n"...)
	}
	head = append(head, lineEnd...)
	if opening := s.answer.opening(); opening != "" {
		head = appendChunk(head, []byte(opening))
	}
	return head
}

// appendToken adds the next token, the first and the last of which have more to tell.
func (s *stream) appendToken(into []byte, text *[textBytes]byte) []byte {
	first, last := s.written == 0, s.written == s.tokens-1
	s.written++
	if first || last {
		return newTemplate([]byte(s.answer.token(first, last))).append(into, text, s.written)
	}
	return s.plain.append(into, text, s.written)
}

// appendClosing adds what comes after the last token.
func (s *stream) appendClosing(into []byte) []byte {
	if closing := s.answer.closing(); closing != "" {
		into = appendChunk(into, []byte(closing))
	}
	into = appendChunk(into, []byte(done))
	return append(into, "0\r\n\r\n"...)
}
