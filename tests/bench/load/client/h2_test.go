//go:build linux

package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// serve starts a server of another making that speaks HTTP/2, and HTTP/1.1, without TLS, and returns its port.
func serve(t *testing.T, streams int, handler http.HandlerFunc) int {
	t.Helper()
	return serveWith(t, handler, &http.HTTP2Config{
		MaxConcurrentStreams: streams, MaxReceiveBufferPerStream: 1 << 16, MaxReceiveBufferPerConnection: 1 << 16,
	})
}

func serveWith(t *testing.T, handler http.HandlerFunc, settings *http.HTTP2Config) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	protocols.SetHTTP1(true)
	server := &http.Server{Handler: handler, Protocols: protocols, HTTP2: settings}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	return listener.Addr().(*net.TCPAddr).Port
}

// grpcAnswer writes messages of an Event, each with so many tokens, and then a status.
func grpcAnswer(messages, tokens int, status string) http.HandlerFunc {
	text := []byte(strings.Repeat("0000000000000001", tokens))
	delta := append([]byte{2<<3 | 2, byte(len(text) | 0x80), byte(len(text) >> 7)}, text...)
	message := append([]byte{3<<3 | 2, byte(len(delta) | 0x80), byte(len(delta) >> 7)}, delta...)
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("content-type", "application/grpc")
		w.Header().Set("trailer", "grpc-status")
		for range messages {
			_, _ = w.Write(grpcMessage(message))
		}
		w.Header().Set("grpc-status", status)
	}
}

func measured(t *testing.T, o *options) *result {
	t.Helper()
	if o.most == 0 {
		o.most = 20 * time.Second
	}
	told, err := measure(o)
	if err != nil {
		t.Fatal(err)
	}
	return told
}

func TestAnswersLargerThanAllWindowsComeAsAWhole(t *testing.T) {
	const messages, tokens = 2000, 500
	port := serve(t, 0, grpcAnswer(messages, tokens, "0"))
	told := measured(t, &options{grpc: true, port: port, streams: 6, connections: 1, tokens: messages * tokens, path: "/x"})
	if told.Done != 6 || told.Tokens != 6*messages*tokens || told.Messages != 6*messages || told.Bytes < lineWindow {
		t.Errorf("%+v", told)
	}
}

func TestRequestsLargerThanAllWindowsAndMoreCallsThanAreAllowedGoOut(t *testing.T) {
	answer := grpcAnswer(1, 1, "0")
	port := serve(t, 3, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if len(body) != 300_005 || r.Method != http.MethodPost || r.Header.Get("k") != "v" || r.Header.Get("te") != "trailers" { // codespell:ignore te
			w.WriteHeader(http.StatusTeapot)
			return
		}
		answer(w, r)
	})
	told := measured(t, &options{grpc: true, port: port, streams: 20, connections: 2, tokens: 1, path: "/x",
		body: make([]byte, 300_000), headers: [][2]string{{"k", "v"}}})
	if told.Done != 20 || told.Tokens != 20 {
		t.Errorf("%+v", told)
	}
}

func TestRequestsLargerThanTheSocketTakesGoOut(t *testing.T) {
	body := make([]byte, 12<<20)
	grpcPort := serveWith(t, grpcAnswer(1, 1, "0"), &http.HTTP2Config{
		MaxReceiveBufferPerStream: 1 << 30, MaxReceiveBufferPerConnection: 1 << 30,
	})
	ssePort := serve(t, 0, func(w http.ResponseWriter, r *http.Request) {
		if got, _ := io.Copy(io.Discard, r.Body); got == int64(len(body)) {
			_, _ = io.WriteString(w, "data: {\"text\":\"0000000000000001\"}\n\ndata: [DONE]\n\n")
		}
	})
	for port, grpc := range map[int]bool{grpcPort: true, ssePort: false} {
		told := measured(t, &options{grpc: grpc, port: port, streams: 3, connections: 1, tokens: 1, path: "/x", body: body})
		if told.Done != 3 {
			t.Errorf("grpc %v: %+v", grpc, told)
		}
	}
}

func TestCallsThatFailAreCountedByWhy(t *testing.T) {
	for why, handler := range map[string]http.HandlerFunc{
		"8":        grpcAnswer(3, 1, "8"),
		"tokens":   grpcAnswer(4, 1, "0"),
		"http 502": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) },
		"reset 2":  func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"2":        grpcAnswer(3, 1, "what"),
		"garbled": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte{1, 0, 0, 0, 0})
		},
		"timeout": func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		},
	} {
		told := measured(t, &options{grpc: true, port: serve(t, 0, handler), streams: 4, connections: 1, tokens: 3, path: "/x",
			most: 300 * time.Millisecond})
		if told.Failed != 4 || told.CallsFailed[why] != 4 {
			t.Errorf("%s: %+v", why, told)
		}
	}
}

func TestStreamsAreHeldOpenAndThenCancelled(t *testing.T) {
	left := make(chan error, 8)
	text := "0000000000000001"
	port := serve(t, 0, func(w http.ResponseWriter, r *http.Request) {
		// The first token takes longer than streams are held.
		time.Sleep(150 * time.Millisecond)
		_, _ = fmt.Fprintf(w, "data: {\"text\":\"%s\"}\n\n", text)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		left <- r.Context().Err()
	})
	began := time.Now()
	told := measured(t, &options{port: port, streams: 8, connections: 1, tokens: 3, path: "/v1/completions", ramp: 100,
		hold: 50 * time.Millisecond})
	if told.Held != 8 || told.Failed != 0 || told.Tokens != 8 || told.Expected != 8 {
		t.Errorf("%+v", told)
	}
	if took := time.Since(began); took < 120*time.Millisecond {
		t.Errorf("only %v for 8 calls at 100 a second and 50 ms more", took)
	}
	for range 8 {
		<-left
	}
}

func TestAnEventStreamThatEndsWithoutItsTerminatorHasFailed(t *testing.T) {
	event := "data: {\"text\":\"0000000000000001\"}\n\n"
	for why, content := range map[string]string{
		"":       event + "data: [DONE]\n\n",
		"closed": event,
		"error":  "data: {\"error\":{\"message\":\"busy\"}}\n\ndata: [DONE]\n\n",
		"tokens": event + event + "data: [DONE]\n\n",
	} {
		port := serve(t, 0, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, content) })
		told := measured(t, &options{port: port, streams: 2, connections: 1, tokens: 1, path: "/v1/completions"})
		if (why == "" && told.Done != 2) || (why != "" && told.CallsFailed[why] != 2) {
			t.Errorf("%q: %+v", why, told)
		}
	}
}

func TestAPortWithoutAServerIsAnError(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	_ = listener.Close()
	for _, grpc := range []bool{true, false} {
		if _, err := measure(&options{grpc: grpc, port: port, streams: 1, connections: 1, tokens: 1, most: time.Second}); err == nil {
			t.Error("there was something to measure")
		}
	}
}
