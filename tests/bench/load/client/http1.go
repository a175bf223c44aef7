package main

import (
	"bytes"
	"strconv"
)

// No head of an answer is longer.
const maxHeadBytes = 64 << 10

// How far the reading of an answer is.
const (
	inHead = iota
	inSize
	inChunk
	afterChunk
	inTrailer
	inLength
	inRest
	atEnd
	broken
)

var (
	lineEnd = []byte("\r\n")
	headEnd = []byte("\r\n\r\n")
)

// response reads one answer of HTTP/1.1 in whatever pieces it comes.
type response struct {
	state  int
	status int
	// line is the part of a head or of a chunk's size that has come, left what is to come of a chunk or of the body.
	line []byte
	left int
}

// feed hands out what is body in a piece, in order. Nothing follows when the state is atEnd or broken.
func (r *response) feed(data []byte, body func([]byte)) {
	for len(data) > 0 && r.state < atEnd {
		switch r.state {
		case inHead:
			data = r.head(data)
		case inSize, afterChunk, inTrailer:
			data = r.control(data)
		case inChunk, inLength:
			n := min(r.left, len(data))
			body(data[:n])
			data, r.left = data[n:], r.left-n
			if r.left == 0 && r.state == inChunk {
				r.state = afterChunk
			} else if r.left == 0 {
				r.state = atEnd
			}
		case inRest:
			body(data)
			return
		}
	}
}

// closed notes that the connection has ended, as some answers do.
func (r *response) closed() {
	if r.state == inRest {
		r.state = atEnd
	} else if r.state != atEnd {
		r.state = broken
	}
}

// control reads the lines around chunks.
func (r *response) control(data []byte) []byte {
	end := bytes.IndexByte(data, '\n')
	if end < 0 {
		if r.line = append(r.line, data...); len(r.line) > maxHeadBytes {
			r.state = broken
		}
		return nil
	}
	line := data[:end]
	if len(r.line) > 0 {
		line = append(r.line, line...)
		r.line = r.line[:0]
	}
	line = bytes.TrimSuffix(line, []byte("\r"))
	switch r.state {
	case afterChunk:
		r.state = inSize
		if len(line) > 0 {
			r.state = broken
		}
	case inTrailer:
		if len(line) == 0 {
			r.state = atEnd
		}
	default:
		size, fine := hexadecimal(line)
		switch {
		case !fine:
			r.state = broken
		case size == 0:
			r.state = inTrailer
		default:
			r.state, r.left = inChunk, size
		}
	}
	return data[end+1:]
}

// head reads the answer's head, and returns what comes after it.
func (r *response) head(data []byte) []byte {
	before := len(r.line)
	r.line = append(r.line, data...)
	end := bytes.Index(r.line, headEnd)
	if end < 0 {
		if len(r.line) > maxHeadBytes {
			r.state = broken
		}
		return nil
	}
	rest := data[end+len(headEnd)-before:]
	first, fields, _ := bytes.Cut(r.line[:end], lineEnd)
	words := bytes.SplitN(first, []byte(" "), 3)
	var err error
	if len(words) < 2 || !bytes.HasPrefix(first, []byte("HTTP/1.")) {
		r.state = broken
		return nil
	}
	if r.status, err = strconv.Atoi(string(words[1])); err != nil {
		r.state = broken
		return nil
	}
	r.line = nil
	r.state = inRest
	for len(fields) > 0 {
		var field []byte
		field, fields, _ = bytes.Cut(fields, lineEnd)
		name, value, _ := bytes.Cut(field, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("transfer-encoding")) && bytes.EqualFold(value, []byte("chunked")):
			r.state = inSize
		case bytes.EqualFold(name, []byte("content-length")) && r.state == inRest:
			r.state = inLength
			if r.left, err = strconv.Atoi(string(value)); err != nil || r.left < 0 {
				r.state = broken
			} else if r.left == 0 {
				r.state = atEnd
			}
		}
	}
	if r.status/100 == 1 {
		r.state = inHead
	}
	return rest
}

// hexadecimal reads the size of a chunk; what comes after a semicolon is no part of it.
func hexadecimal(line []byte) (int, bool) {
	number, digits := 0, 0
	for _, letter := range line {
		switch {
		case letter >= '0' && letter <= '9':
			number = number<<4 | int(letter-'0')
		case letter|0x20 >= 'a' && letter|0x20 <= 'f':
			number = number<<4 | int(letter|0x20-'a'+10)
		case letter == ';' || letter == ' ':
			return number, digits > 0
		default:
			return 0, false
		}
		if digits++; digits > 7 {
			return 0, false
		}
	}
	return number, digits > 0
}
