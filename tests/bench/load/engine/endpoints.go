//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"strings"
)

const (
	// Tokens of prompt and answer together, as Llama 3.1 has them.
	contextWindow = 131072
	vocabulary    = 128256
)

var streaming = map[string]dialect{
	"/v1/completions":      completions,
	"/v1/chat/completions": chat,
	"/generate":            generate,
}

// Endpoints that say by a 200 alone that all is well.
var silent = map[string]bool{
	"/health": true, "/health_generate": true, "/ready": true, "/ping": true,
	"/abort_request": true, "/abort_requests": true, "/flush_cache": true,
}

// answer answers one request.
func (s *server) answer(c *conn, one request) {
	kind, generates := streaming[one.path]
	if !generates {
		status, content := s.reply(one)
		s.send(c, appendReply(nil, c, status, content))
		return
	}
	a, err := parseAsked(kind, one.body)
	switch {
	case one.method != "POST":
		s.send(c, appendReply(nil, c, 405, `{"detail":"Method Not Allowed"}`))
	case err != nil:
		s.send(c, appendReply(nil, c, 400, refusal(err.Error())))
	case a.Stream:
		s.named(a)
		s.begin(c, kind, a)
	default:
		s.named(a)
		s.look()
		whole := newAnswer(kind, a)
		s.tokens += uint64(a.tokens)
		s.send(c, appendReply(nil, c, 200, whole.whole(strings.Repeat(string(s.text[:]), a.tokens))))
	}
}

func (s *server) named(a *asked) {
	if a.Model == "" {
		a.Model = s.model
	}
}

// reply answers what is not about an answer of the model: what gateways ask of an engine before they use it.
func (s *server) reply(one request) (int, string) {
	if silent[one.path] {
		return 200, ""
	}
	switch one.path {
	case "/-/cost":
		return 200, string(s.cost())
	case "/v1/models":
		return 200, fmt.Sprintf(`{"object":"list","data":[{"id":%s,"object":"model","created":1750000000,"owned_by":"vllm",`+
			`"root":%[1]s,"parent":null,"max_model_len":%d}]}`, quoted(s.model), contextWindow)
	case "/version":
		return 200, `{"version":"0.32.0"}`
	case "/load":
		return 200, fmt.Sprintf(`{"server_load":%d}`, s.running)
	case "/metrics":
		return 200, fmt.Sprintf("# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{engine=\"0\"} %d.0\n"+
			"# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{engine=\"0\"} 0.0\n", s.running)
	case "/model_info", "/get_model_info":
		return 200, s.modelInfo()
	case "/server_info", "/get_server_info":
		return 200, s.serverInfo()
	case "/v1/loads":
		return 200, fmt.Sprintf(`{"version":"0.5.23","loads":[{"dp_rank":0,"num_running_reqs":%d,"num_waiting_reqs":0,`+
			`"num_used_tokens":0,"max_total_num_tokens":%d,"token_usage":0.0}]}`, s.running, contextWindow)
	case "/tokenize", "/v1/tokenize":
		return tokenizeReply(one.body)
	case "/detokenize", "/v1/detokenize":
		return detokenizeReply(one.body)
	}
	return 404, `{"detail":"Not Found"}`
}

func (s *server) modelInfo() string {
	return fmt.Sprintf(`{"model_path":"/models/llama","served_model_name":%s,"tokenizer_path":"/models/llama",`+
		`"is_generation":true,"preferred_sampling_params":null,"weight_version":"default","reasoning_parser":null,`+
		`"tool_call_parser":null,"disaggregation_mode":"null","has_image_understanding":false,`+
		`"has_audio_understanding":false,"model_type":"llama","architectures":["LlamaForCausalLM"]}`, quoted(s.model))
}

func (s *server) serverInfo() string {
	return fmt.Sprintf(`{"model_path":"/models/llama","served_model_name":%s,"status":"ready","version":"0.5.23",`+
		`"frontend":"python","incremental_streaming_output":true,"max_total_num_tokens":%d,"max_req_input_len":%d,`+
		`"context_length":%[2]d,"tp_size":1,"dp_size":1,"tool_call_parser":null,"reasoning_parser":null,`+
		`"enable_deterministic_inference":false,"enable_priority_scheduling":false,"internal_states":[{}]}`,
		quoted(s.model), contextWindow, contextWindow-6)
}

func tokenizeReply(body []byte) (int, string) {
	var asked struct {
		Prompt   json.RawMessage `json:"prompt"`
		Messages json.RawMessage `json:"messages"`
	}
	if err := json.Unmarshal(body, &asked); err != nil {
		return 400, refusal(err.Error())
	}
	prompt := asked.Prompt
	if len(prompt) == 0 {
		prompt = asked.Messages
	}
	ids, err := promptTokens(prompt)
	if err != nil {
		return 400, refusal(err.Error())
	}
	return 200, fmt.Sprintf(`{"count":%d,"max_model_len":%d,"tokens":%s,"token_strs":null}`,
		len(ids), contextWindow, idList(ids))
}

// detokenizeReply tells one text, or several; vLLM calls it prompt, SGLang text.
func detokenizeReply(body []byte) (int, string) {
	var one struct {
		Tokens []int `json:"tokens"`
	}
	if json.Unmarshal(body, &one) == nil {
		text, known := detokenize(one.Tokens)
		if !known {
			return 400, refusal("unknown token")
		}
		return 200, fmt.Sprintf(`{"prompt":%s,"text":%[1]s}`, quoted(text))
	}
	var several struct {
		Tokens [][]int `json:"tokens"`
	}
	if err := json.Unmarshal(body, &several); err != nil {
		return 400, refusal(err.Error())
	}
	texts := make([]string, len(several.Tokens))
	for place, ids := range several.Tokens {
		text, known := detokenize(ids)
		if !known {
			return 400, refusal("unknown token")
		}
		texts[place] = quoted(text)
	}
	return 200, `{"text":[` + strings.Join(texts, ",") + `]}`
}

func refusal(message string) string {
	return fmt.Sprintf(`{"error":{"message":%s,"type":"BadRequestError","param":null,"code":400}}`, quoted(message))
}

// appendReply adds a whole answer of HTTP.
func appendReply(into []byte, c *conn, status int, content string) []byte {
	words := map[int]string{200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed"}
	kind, ends := "application/json", ""
	if strings.HasPrefix(content, "#") {
		kind = "text/plain; version=0.0.4; charset=utf-8"
	}
	if c.closes {
		ends = "connection: close\r\n"
	}
	return fmt.Appendf(into, "HTTP/1.1 %d %s\r\nserver: uvicorn\r\ncontent-length: %d\r\ncontent-type: %s\r\n%s\r\n%s",
		status, words[status], len(content), kind, ends, content)
}
