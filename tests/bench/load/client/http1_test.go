package main

import (
	"fmt"
	"strings"
	"testing"
)

// read feeds an answer in pieces and returns its body and how the reading ended.
func read(answer string, size int, closes bool) (string, *response) {
	var body strings.Builder
	r := &response{}
	for rest := answer; rest != ""; {
		piece := rest[:min(size, len(rest))]
		rest = rest[len(piece):]
		r.feed([]byte(piece), func(data []byte) { body.Write(data) })
	}
	if closes {
		r.closed()
	}
	return body.String(), r
}

func TestAnswersAreReadHoweverTheyAreCut(t *testing.T) {
	chunked := "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n1A;x=1\r\n" + strings.Repeat("d", 26) +
		"\r\n0\r\nx-trailer: 1\r\n\r\n"
	whole := "abc" + strings.Repeat("d", 26)
	for name, one := range map[string]struct {
		answer string
		body   string
		state  int
		status int
		closes bool
	}{
		"chunks":             {chunked, whole, atEnd, 200, false},
		"chunks, cut short":  {chunked[:len(chunked)-40], "", broken, 200, true},
		"after 100":          {"HTTP/1.1 100 Continue\r\n\r\n" + chunked, whole, atEnd, 200, false},
		"a length":           {"HTTP/1.1 503 No\r\ncontent-length: 4\r\n\r\nbusy", "busy", atEnd, 503, false},
		"no body":            {"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n", "", atEnd, 404, false},
		"until the end":      {"HTTP/1.0 200 OK\r\n\r\nall", "all", atEnd, 200, true},
		"no head":            {"SSH-2.0-x\r\n\r\n", "", broken, 0, true},
		"a wrong size":       {"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n", "", broken, 200, false},
		"an enormous size":   {"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffff\r\n", "", broken, 200, false},
		"more than the size": {"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab\r\n", "a", broken, 200, false},
	} {
		for size := 1; size <= len(one.answer); size++ {
			body, r := read(one.answer, size, one.closes)
			if r.state != one.state || r.status != one.status || (one.state == atEnd && body != one.body) {
				t.Fatalf("%s in pieces of %d: %q, %d, %d", name, size, body, r.state, r.status)
			}
		}
	}
}

func TestTheTextOfEventsIsReadHoweverTheyAreCut(t *testing.T) {
	stream := ": ping\n\nevent: x\r\ndata: {\"id\":\"1\",\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}\r\n\r\n" +
		"data: {\"created\":1234567890123456,\"delta\":{\"content\":\"0000000000000001\"}}\n\n" +
		"data:{\"type\": \"content\", \"delta\": {\"content\": \"a\\\"0000000000000002\\\\\"}, \"text\":\"no\"}\n\n" +
		"data: {\"choices\":[],\"usage\":{}}\n\ndata: [DONE]\n\n"
	for size := 1; size <= len(stream); size++ {
		var texts, payloads []string
		e := &events{key: contentKey("/v1/chat/completions?x"), told: func(payload, text []byte, found bool) {
			payloads = append(payloads, string(payload))
			if found {
				texts = append(texts, string(text))
			}
		}}
		for rest := stream; rest != ""; {
			piece := rest[:min(size, len(rest))]
			rest = rest[len(piece):]
			e.feed([]byte(piece))
		}
		want := fmt.Sprint([]string{"", "0000000000000001", `a\"0000000000000002\\`})
		if fmt.Sprint(texts) != want || len(payloads) != 5 || payloads[4] != "[DONE]" {
			t.Fatalf("in pieces of %d: %q %q", size, texts, payloads)
		}
	}
}
