package main

import (
	"bytes"
	"strings"
)

// A longer line is no event of a stream.
const maxLineBytes = 8 << 20

var (
	dataField  = []byte("data:")
	terminator = []byte("[DONE]")
)

// events reads server-sent events in whatever pieces they come: each of the engines' and gateways' is one line.
type events struct {
	// key is what stands before the text of an answer.
	key []byte
	// told takes the payload of an event, and the text in it.
	told func(payload, text []byte, found bool)
	rest []byte
}

// contentKey returns the key of the text that an endpoint's events tell.
func contentKey(path string) []byte {
	path, _, _ = strings.Cut(path, "?")
	if strings.HasSuffix(path, "/chat/completions") {
		return []byte(`"content"`)
	}
	return []byte(`"text"`)
}

// feed takes a piece of the stream.
func (e *events) feed(data []byte) {
	for {
		end := bytes.IndexByte(data, '\n')
		if end < 0 {
			if len(e.rest)+len(data) <= maxLineBytes {
				e.rest = append(e.rest, data...)
			}
			return
		}
		line := data[:end]
		if len(e.rest) > 0 {
			line = append(e.rest, line...)
			e.rest = e.rest[:0]
		}
		data = data[end+1:]
		if bytes.HasPrefix(line, dataField) {
			payload := bytes.TrimSpace(line[len(dataField):])
			text, found := stringAfter(payload, e.key)
			e.told(payload, text, found)
		}
	}
}

// stringAfter returns the string that is the value of a key, its escapes as they stand. No string in JSON has the key
// with its quotes inside, as they would be escaped there; one that is the key's very name has no colon behind it.
func stringAfter(payload, key []byte) ([]byte, bool) {
	for {
		place := bytes.Index(payload, key)
		if place < 0 {
			return nil, false
		}
		payload = payload[place+len(key):]
		value := bytes.TrimLeft(payload, " \t")
		if len(value) == 0 || value[0] != ':' {
			continue
		}
		value = bytes.TrimLeft(value[1:], " \t")
		if len(value) == 0 || value[0] != '"' {
			continue
		}
		value = value[1:]
		for end := 0; end < len(value); end++ {
			switch value[end] {
			case '\\':
				end++
			case '"':
				return value[:end], true
			}
		}
		return nil, false
	}
}
