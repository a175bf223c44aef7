package main

import (
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"
)

func TestTheHeadOfACallIsReadByAnHPACKDecoder(t *testing.T) {
	long := strings.Repeat("x", 5000)
	block := requestHeaders("/p.S/M", "127.0.0.1:1", [][2]string{{"authorization", "Bearer k"}, {"long", long}})
	decoder := hpack.NewDecoder(4096, nil)
	fields, err := decoder.DecodeFull(block)
	if err != nil {
		t.Fatal(err)
	}
	want := [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", "/p.S/M"}, {":authority", "127.0.0.1:1"}, {"te", "trailers"}, // codespell:ignore te
		{"content-type", "application/grpc"}, {"user-agent", "tokenwire-load/1"}, {"authorization", "Bearer k"}, {"long", long},
	}
	if len(fields) != len(want) {
		t.Fatalf("%d fields", len(fields))
	}
	for place, one := range want {
		if fields[place].Name != one[0] || fields[place].Value != one[1] {
			t.Errorf("%v is not %v", fields[place], one)
		}
	}
	again, err := decoder.DecodeFull(block)
	if err != nil || len(again) != len(want) {
		t.Error("the same bytes cannot be sent twice: a table remembers them")
	}
}

func TestIntegersAreThoseOfTheRFC(t *testing.T) {
	// RFC 7541, appendix C.1.
	for _, one := range []struct {
		prefix int
		number uint64
		want   string
	}{{5, 10, "\x0a"}, {5, 1337, "\x1f\x9a\x0a"}, {8, 42, "\x2a"}} {
		if got := string(appendInteger(nil, 0, one.prefix, one.number)); got != one.want {
			t.Errorf("%d: %x", one.number, got)
		}
	}
}
