package main

import (
	"bytes"
	"strconv"
)

const (
	// Stands in a payload where a token's text goes: 16 digits. No payload has it otherwise.
	textMark = "\x01234567890123456"
	// Stands where the number of tokens so far goes.
	countMark = "\x02"
	textBytes = 16
)

// template is one chunk of an answer, ready to be written but for the token's text and, in some dialects, its number.
type template struct {
	payload []byte
	chunk   []byte
	text    int
	count   int
	width   int
	counts  bool
}

// newTemplate prepares a payload, which has the text's mark in it and may have the number's.
func newTemplate(payload []byte) *template {
	t := &template{payload: payload, counts: bytes.Contains(payload, []byte(countMark))}
	t.frame(1)
	return t
}

// append adds the chunk of one token.
func (t *template) append(into []byte, text *[textBytes]byte, count int) []byte {
	if t.counts && digits(count) != t.width {
		t.frame(digits(count))
	}
	start := len(into)
	into = append(into, t.chunk...)
	copy(into[start+t.text:], text[:])
	if t.counts {
		writeDigits(into[start+t.count:start+t.count+t.width], uint64(count))
	}
	return into
}

// frame makes the chunk for numbers of so many digits.
func (t *template) frame(width int) {
	t.width = width
	payload := bytes.Replace(t.payload, []byte(countMark), bytes.Repeat([]byte("0"), width), 1)
	t.chunk = appendChunk(nil, payload)
	t.text = bytes.Index(t.chunk, []byte(textMark))
	if t.counts {
		head := len(t.chunk) - len(payload) - len(lineEnd)
		t.count = head + bytes.Index(t.payload, []byte(countMark))
	}
}

// appendChunk adds one chunk of HTTP/1.1.
func appendChunk(into, payload []byte) []byte {
	into = strconv.AppendUint(into, uint64(len(payload)), 16)
	into = append(into, lineEnd...)
	into = append(into, payload...)
	return append(into, lineEnd...)
}

func digits(number int) int {
	width := 1
	for ; number >= 10; number /= 10 {
		width++
	}
	return width
}

// writeDigits fills a field with a number, zeros first.
func writeDigits(field []byte, number uint64) {
	for place := len(field) - 1; place >= 0; place-- {
		field[place] = byte('0' + number%10)
		number /= 10
	}
}
