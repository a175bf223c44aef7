//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// engine starts one with a port of so many tokens a second, and returns its URL.
func engine(t *testing.T, rate float64) string {
	t.Helper()
	s, err := newServer("bench")
	if err != nil {
		t.Fatal(err)
	}
	port, err := s.listen(0, newPace(rate, false))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		s.serve()
		close(ended)
	}()
	t.Cleanup(func() {
		s.wake.Up()
		<-ended
	})
	return fmt.Sprintf("http://127.0.0.1:%d", port)
}

func ask(t *testing.T, url, body string) (int, string) {
	t.Helper()
	var reply *http.Response
	var err error
	if body == "" {
		reply, err = http.Get(url)
	} else {
		reply, err = http.Post(url, "application/json", strings.NewReader(body))
	}
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	content, err := io.ReadAll(reply.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply.StatusCode, string(content)
}

func counts(t *testing.T, url string) map[string]float64 {
	t.Helper()
	_, content := ask(t, url+"/-/cost", "")
	told := map[string]float64{}
	if err := json.Unmarshal([]byte(content), &told); err != nil {
		t.Fatal(err)
	}
	return told
}

func TestAStreamHasEveryTokenAtAnySpeed(t *testing.T) {
	for rate, tokens := range map[float64]int{0: 50_000, 2000: 40} {
		url := engine(t, rate)
		for path, body := range map[string]string{
			"/v1/completions":      `{"prompt":"hi","max_tokens":%d,"stream":true}`,
			"/v1/chat/completions": `{"messages":[],"max_tokens":%d,"stream":true}`,
			"/generate":            `{"text":"hi","sampling_params":{"max_new_tokens":%d},"stream":true}`,
		} {
			_, content := ask(t, url+path, fmt.Sprintf(body, tokens))
			events := strings.Count(content, "data: {")
			if path == "/v1/chat/completions" {
				events--
			}
			if events != tokens || !strings.HasSuffix(content, "data: [DONE]\n\n") {
				t.Errorf("%s at %v: %d events", path, rate, events)
			}
		}
		if told := counts(t, url); told["tokens"] != float64(3*tokens) || told["running"] != 0 || told["cpu_seconds"] <= 0 {
			t.Errorf("%v", told)
		}
	}
}

func TestAReaderThatStopsAWhileMissesNothing(t *testing.T) {
	const tokens = 80_000
	// Paced tokens are kept for a reader that stops; at full speed none are made for it.
	for _, rate := range []float64{0, 1e6} {
		url := engine(t, rate)
		reply, err := http.Post(url+"/v1/completions", "application/json",
			strings.NewReader(fmt.Sprintf(`{"prompt":"hi","max_tokens":%d,"stream":true}`, tokens)))
		if err != nil {
			t.Fatal(err)
		}
		defer reply.Body.Close()
		// Others are served meanwhile.
		for told := counts(t, url); rate > 0 && told["tokens"] < tokens; told = counts(t, url) {
			if told["running"] != 1 {
				t.Fatal(told)
			}
		}
		events := 0
		for lines := bufio.NewScanner(reply.Body); lines.Scan(); {
			if strings.HasPrefix(lines.Text(), "data: {") {
				events++
			}
		}
		if events != tokens {
			t.Errorf("%d events at %v", events, rate)
		}
	}
}

func TestAnAnswerThatNobodyReadsAnyMoreIsStopped(t *testing.T) {
	url := engine(t, 5)
	address := strings.TrimPrefix(url, "http://")
	body := `{"prompt":"hi","max_tokens":80000,"stream":true}`
	connection, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(connection, "POST /v1/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n%s", len(body), body)
	if _, err := bufio.NewReader(connection).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if told := counts(t, url); told["running"] != 1 {
		t.Errorf("%v", told)
	}
	_ = connection.Close()
	for limit := time.Now().Add(10 * time.Second); counts(t, url)["running"] != 0; {
		if time.Now().After(limit) {
			t.Fatal("it goes on")
		}
	}
}

func TestRequestsOfOneConnectionAreAnsweredInOrder(t *testing.T) {
	url := engine(t, 0)
	connection, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	body := `{"prompt":"hi","max_tokens":2,"stream":true}`
	stream := fmt.Sprintf("POST /v1/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n%s", len(body), body)
	last := strings.Replace(stream, "\r\n", "\r\nconnection: close\r\n", 1)
	fmt.Fprint(connection, stream+"GET /version HTTP/1.1\r\n\r\n"+stream+"GET /nope HTTP/1.1\r\n\r\n"+last+stream)
	content, err := io.ReadAll(connection)
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	for line := range strings.Lines(string(content)) {
		for _, mark := range []string{"HTTP/1.1 404", "[DONE]", `{"version":"0.32.0"}`} {
			if strings.Contains(line, mark) {
				order = append(order, mark)
			}
		}
	}
	if got := strings.Join(order, " "); got != `[DONE] {"version":"0.32.0"} [DONE] HTTP/1.1 404 [DONE]` {
		t.Error(got)
	}
}

func TestGatewaysAreToldWhatTheyAsk(t *testing.T) {
	url := engine(t, 50)
	for path, want := range map[string]string{
		"/health": "", "/health_generate": "", "/ready": "", "/ping": "", "/v1/models": `"id":"bench"`,
		"/version": `"0.32.0"`, "/load": `{"server_load":0}`, "/metrics": "vllm:num_requests_running{engine=\"0\"} 0.0",
		"/model_info": `"served_model_name":"bench"`, "/get_model_info": `"is_generation":true`,
		"/server_info": `"incremental_streaming_output":true`, "/get_server_info": `"dp_size":1`,
		"/v1/loads": `"num_running_reqs":0`,
	} {
		if status, content := ask(t, url+path, ""); status != 200 || !strings.Contains(content, want) {
			t.Errorf("%s: %d %s", path, status, content)
		}
	}
	for _, one := range [][3]string{
		{"/tokenize", `{"prompt":"hi"}`, `"count":2,"max_model_len":131072,"tokens":[104,105]`},
		{"/v1/tokenize", `{"messages":[{"role":"user"}]}`, `"count":17`},
		{"/detokenize", `{"tokens":[104,105,7042]}`, `{"prompt":"hix","text":"hix"}`},
		{"/v1/detokenize", `{"tokens":[[104],[105]]}`, `{"text":["h","i"]}`},
		{"/v1/completions", `{"prompt":"hi","max_tokens":2}`, `"completion_tokens":2`},
		{"/v1/chat/completions", `{"messages":[],"max_tokens":2,"return_token_ids":true}`, `"token_ids":[7042,7042]`},
		{"/generate", `{"text":"hi","sampling_params":{"max_new_tokens":2}}`, `"output_ids":[7042,7042]`},
	} {
		status, content := ask(t, url+one[0], one[1])
		if status != 200 || !strings.Contains(content, one[2]) || !json.Valid([]byte(content)) {
			t.Errorf("%s: %d %s", one[0], status, content)
		}
	}
	for _, one := range [][2]string{
		{"/v1/detokenize", `{"tokens":[200000,200000]}`}, {"/tokenize", `{}`}, {"/v1/completions", `{"prompt":["a","b"]}`},
	} {
		if status, content := ask(t, url+one[0], one[1]); status != 400 || !strings.Contains(content, `"error"`) {
			t.Errorf("%s: %d %s", one[0], status, content)
		}
	}
	if status, _ := ask(t, url+"/nope", ""); status != 404 {
		t.Error(status)
	}
	if status, _ := ask(t, url+"/generate", ""); status != 405 {
		t.Error(status)
	}
}
