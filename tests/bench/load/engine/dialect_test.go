package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// shape returns JSON with all values but null taken for their kinds, so that two events with the same fields in the
// same order have the same one.
func shape(t *testing.T, payload string) string {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(payload))
	var told []string
	for {
		part, err := decoder.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("%v: %s", err, payload)
		}
		word := ""
		switch one := part.(type) {
		case json.Delim:
			word = one.String()
		case string:
			// A key, or one of the few values that are words of the format.
			word = one
			if strings.ContainsAny(one, " .:\n0123456789") || one == "" || len(told) > 0 && free[told[len(told)-1]] {
				word = "TEXT"
			}
		case float64:
			word = "NUMBER"
		default:
			word = fmt.Sprint(one)
		}
		if word == "NUMBER" && told[len(told)-1] == "NUMBER" {
			continue
		}
		told = append(told, word)
	}
	return strings.Join(told, " ")
}

// Keys whose values are free text.
var free = map[string]bool{"text": true, "content": true, "model": true, "id": true, "system_fingerprint": true}

// captured returns the shapes of the events that a real engine has sent.
func captured(t *testing.T, engine string, names ...string) map[string]bool {
	t.Helper()
	shapes := map[string]bool{}
	for _, name := range names {
		content, err := os.ReadFile(filepath.Join("..", "..", "..", "wire_captures", engine, name))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(content)) {
			if payload, is := strings.CutPrefix(strings.TrimSpace(line), "data: {"); is {
				shapes[shape(t, "{"+payload)] = true
			}
		}
	}
	return shapes
}

// told returns the events of an answer.
func told(t *testing.T, kind dialect, body string) []string {
	t.Helper()
	a, err := parseAsked(kind, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	a.Model = "m"
	one := newStream(&conn{}, kind, a)
	answer := one.head()
	var text [textBytes]byte
	writeDigits(text[:], 1)
	for range one.tokens {
		answer = one.appendToken(answer, &text)
	}
	answer = one.appendClosing(answer)
	_, rest, _ := strings.Cut(string(answer), "\r\n\r\n")
	var payloads []string
	for rest != "" {
		var size int
		line, after, _ := strings.Cut(rest, "\r\n")
		if _, err := fmt.Sscanf(line, "%x", &size); err != nil {
			t.Fatal(err)
		}
		if size > 0 {
			payloads = append(payloads, strings.TrimSuffix(strings.TrimPrefix(after[:size], "data: "), "\n\n"))
		}
		rest = after[size+2:]
	}
	last := len(payloads) - 1
	if payloads[last] != "[DONE]" {
		t.Fatalf("the last event is %s", payloads[last])
	}
	return payloads[:last]
}

func TestEventsHaveTheFieldsOfRealEngines(t *testing.T) {
	vllm := captured(t, "vllm", "10b-completions-stream-rawchunks.resp", "11-completions-stream-usage.resp",
		"16-completions-stream-return_token_ids.resp", "41b-chat-stream-rawchunks.resp", "41-chat-stream.resp",
		"44b-chat-stream-return_token_ids.resp")
	sglang := captured(t, "sglang", "incr_gen_stream.txt")
	for _, one := range []struct {
		kind   dialect
		body   string
		events int
		shapes map[string]bool
	}{
		{completions, `{"prompt":"hello","max_tokens":3,"stream":true}`, 3, vllm},
		{completions, `{"prompt":"hello","max_tokens":3,"return_token_ids":true}`, 3, vllm},
		{completions, `{"prompt":[1,2],"max_tokens":12,"stream_options":{"include_usage":true}}`, 13, vllm},
		{chat, `{"messages":[{"role":"user","content":"x"}],"max_completion_tokens":3,"return_token_ids":true}`, 4, vllm},
		{chat, `{"messages":[{"role":"user","content":"x"}],"max_tokens":3,"return_token_ids":true,"stream_options":{"include_usage":true}}`, 5, nil},
		{chat, `{"messages":[{"role":"user","content":"x"}]}`, 101, nil},
		{generate, `{"text":"hello","sampling_params":{"max_new_tokens":12},"rid":"r"}`, 12, sglang},
		{generate, `{"input_ids":[1,2]}`, 128, sglang},
	} {
		events := told(t, one.kind, one.body)
		if len(events) != one.events {
			t.Errorf("%s: %d events", one.body, len(events))
		}
		for _, event := range events {
			if got := shape(t, event); one.shapes != nil && !one.shapes[got] {
				t.Errorf("no real engine sends\n%s\n%s", event, got)
			}
		}
	}
}

func TestEachTokenIsNumbered(t *testing.T) {
	for place, event := range told(t, generate, `{"text":"hello","sampling_params":{"max_new_tokens":1200}}`) {
		var one struct {
			Text string `json:"text"`
			Meta struct {
				Tokens int `json:"completion_tokens"`
				Prompt int `json:"prompt_tokens"`
			} `json:"meta_info"`
		}
		if err := json.Unmarshal([]byte(event), &one); err != nil {
			t.Fatal(err)
		}
		if one.Meta.Tokens != place+1 || one.Meta.Prompt != 5 || len(one.Text) != textBytes {
			t.Fatalf("%d: %+v", place, one)
		}
	}
}

func TestWhatCannotBeAnsweredIsRefused(t *testing.T) {
	for body, kind := range map[string]dialect{
		`{`:                                      completions,
		`{"prompt":"x","n":2}`:                   completions,
		`{"prompt":["x","y"]}`:                   completions,
		`{"prompt":"x","max_tokens":0}`:          completions,
		`{}`:                                     chat,
		`{"text":"x","sampling_params":{"n":2}}`: generate,
	} {
		if _, err := parseAsked(kind, []byte(body)); err == nil {
			t.Errorf("%s is answered", body)
		}
	}
}
