package main

import (
	"bytes"
	"errors"
	"strconv"
)

// No request is longer; a prompt of a million tokens is not.
const maxRequestBytes = 64 << 20

var (
	errBadRequest = errors.New("not an HTTP/1.1 request")
	headEnd       = []byte("\r\n\r\n")
	lineEnd       = []byte("\r\n")
)

// request is one HTTP request; its parts lie in the buffer that it was read from.
type request struct {
	method string
	path   string
	body   []byte
	// closes: the other side wants the connection closed after the answer.
	closes bool
}

// parseRequest reads the first request of a buffer and returns how many bytes it takes; 0: it has not come as a whole.
func parseRequest(buffer []byte) (request, int, error) {
	end := bytes.Index(buffer, headEnd)
	if end < 0 {
		if len(buffer) > maxRequestBytes {
			return request{}, 0, errBadRequest
		}
		return request{}, 0, nil
	}
	head, rest := buffer[:end], buffer[end+len(headEnd):]
	line, fields, _ := bytes.Cut(head, lineEnd)
	method, target, found := bytes.Cut(line, []byte(" "))
	target, _, more := bytes.Cut(target, []byte(" "))
	if !found || !more {
		return request{}, 0, errBadRequest
	}
	path, _, _ := bytes.Cut(target, []byte("?"))
	asked := request{method: string(method), path: string(path)}
	length, chunked := 0, false
	for len(fields) > 0 {
		line, fields, _ = bytes.Cut(fields, lineEnd)
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("content-length")):
			var err error
			if length, err = strconv.Atoi(string(value)); err != nil || length < 0 || length > maxRequestBytes {
				return request{}, 0, errBadRequest
			}
		case bytes.EqualFold(name, []byte("transfer-encoding")):
			chunked = bytes.EqualFold(value, []byte("chunked"))
		case bytes.EqualFold(name, []byte("connection")):
			asked.closes = bytes.EqualFold(value, []byte("close"))
		}
	}
	if chunked {
		body, taken, err := unchunk(rest)
		if taken == 0 || err != nil {
			return request{}, 0, err
		}
		asked.body = body
		return asked, end + len(headEnd) + taken, nil
	}
	if len(rest) < length {
		return request{}, 0, nil
	}
	asked.body = rest[:length]
	return asked, end + len(headEnd) + length, nil
}

// unchunk reads a body that came in chunks, without trailers, and returns how many bytes it takes; 0: it is not whole.
func unchunk(buffer []byte) ([]byte, int, error) {
	var body []byte
	taken := 0
	for {
		line, rest, found := bytes.Cut(buffer[taken:], lineEnd)
		if !found {
			return nil, 0, nil
		}
		digits, _, _ := bytes.Cut(line, []byte(";"))
		size, err := strconv.ParseUint(string(bytes.TrimSpace(digits)), 16, 31)
		if err != nil || len(body)+int(size) > maxRequestBytes {
			return nil, 0, errBadRequest
		}
		if len(rest) < int(size)+len(lineEnd) {
			return nil, 0, nil
		}
		body = append(body, rest[:size]...)
		taken += len(line) + len(lineEnd) + int(size) + len(lineEnd)
		if size == 0 {
			return body, taken, nil
		}
	}
}
