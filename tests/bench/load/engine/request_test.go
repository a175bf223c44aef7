package main

import (
	"testing"
)

func TestRequestsAreReadWhenTheyAreWhole(t *testing.T) {
	for name, one := range map[string]struct {
		text, method, path, body string
		closes                   bool
	}{
		"a GET":     {"GET /health?x=1 HTTP/1.1\r\nHost: a\r\n\r\n", "GET", "/health", "", false},
		"a length":  {"POST /generate HTTP/1.1\r\nContent-Length: 4\r\nConnection: Close\r\n\r\n{\"\"}", "POST", "/generate", `{""}`, true},
		"chunks":    {"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n", "POST", "/x", "{}0123456789", false},
		"no chunks": {"POST /x HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", "POST", "/x", "", false},
	} {
		for size := range len(one.text) {
			if _, taken, err := parseRequest([]byte(one.text[:size])); taken != 0 || err != nil {
				t.Fatalf("%s: %d of %d bytes are a request: %v", name, size, len(one.text), err)
			}
		}
		got, taken, err := parseRequest([]byte(one.text + "GET"))
		if err != nil || taken != len(one.text) || got.method != one.method || got.path != one.path ||
			string(got.body) != one.body || got.closes != one.closes {
			t.Errorf("%s: %+v %d %v", name, got, taken, err)
		}
	}
}

func TestWhatIsNoRequestIsSeen(t *testing.T) {
	for _, text := range []string{"x\r\n\r\n", "GET /\r\n\r\n", "POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n",
		"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n", "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
		"POST / HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n"} {
		if _, _, err := parseRequest([]byte(text)); err == nil {
			t.Errorf("%q is one", text)
		}
	}
}

func FuzzRequestsAreReadWithoutAPanic(f *testing.F) {
	f.Add([]byte("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, taken, _ := parseRequest(data); taken > len(data) {
			t.Error("more than there was")
		}
	})
}
