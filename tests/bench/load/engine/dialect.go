package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// dialect is how an answer is told.
type dialect int

const (
	completions dialect = iota
	chat
	generate
)

// The token that is written again and again: its id is one of the model's, its text the moment at which it was sent.
const answerToken = 7042

const done = "data: [DONE]\n\n"

// answer makes the payloads of one answer.
type answer struct {
	kind dialect
	*asked
	id      string
	created int64
}

// opening returns what comes before the first token.
func (a *answer) opening() string {
	if a.kind != chat {
		return ""
	}
	prompt := "null"
	if a.ReturnTokenIDs {
		prompt = idList(a.prompt)
	}
	return a.chunk(`{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}`,
		`,"prompt_token_ids":`+prompt+`,"prompt_text":null`)
}

// token returns the payload of one token, with marks where its text and its number go.
func (a *answer) token(first, last bool) string {
	if a.kind == generate {
		return a.generated(textMark, countMark, []int{answerToken}, first, last)
	}
	ids, prompt, finish, stop, fingerprint := "null", "null", "null", "", ""
	if a.ReturnTokenIDs {
		ids = "[" + strconv.Itoa(answerToken) + "]"
		if first {
			prompt = idList(a.prompt)
		}
	}
	if last {
		finish = `"length"`
		if !a.StreamOptions.IncludeUsage {
			fingerprint = signed
		}
	}
	if a.kind == chat {
		if last {
			stop = `"stop_reason":null,`
		}
		return a.chunk(fmt.Sprintf(`{"index":0,"delta":{"content":"%s"},"logprobs":null,"finish_reason":%s,%s"token_ids":%s}`,
			textMark, finish, stop, ids), fingerprint)
	}
	return a.chunk(fmt.Sprintf(
		`{"index":0,"text":"%s","logprobs":null,"finish_reason":%s,"stop_reason":null,"prompt_token_ids":%s,"token_ids":%s}`,
		textMark, finish, prompt, ids), fingerprint)
}

// closing returns what comes after the last token, and before the terminator; often nothing.
func (a *answer) closing() string {
	if a.kind == generate || !a.StreamOptions.IncludeUsage {
		return ""
	}
	return a.chunk("", `,"usage":`+a.usage()+signed)
}

// whole returns the answer to a request that wants no stream.
func (a *answer) whole(text string) string {
	ids := make([]int, a.tokens)
	for place := range ids {
		ids[place] = answerToken
	}
	switch a.kind {
	case generate:
		payload := a.generated(text, strconv.Itoa(a.tokens), ids, true, true)
		return strings.TrimSuffix(strings.TrimPrefix(payload, "data: "), "\n\n")
	case chat:
		return fmt.Sprintf(`{"id":"%s","object":"chat.completion","created":%d,"model":%s,"choices":[{"index":0,`+
			`"message":{"role":"assistant","content":"%s"},"logprobs":null,"finish_reason":"length","stop_reason":null,`+
			`"token_ids":%s}],"usage":%s,"prompt_token_ids":%s%s}`,
			a.id, a.created, quoted(a.Model), text, a.told(ids), a.usage(), a.told(a.prompt), signed)
	}
	return fmt.Sprintf(`{"id":"%s","object":"text_completion","created":%d,"model":%s,"choices":[{"index":0,"text":"%s",`+
		`"logprobs":null,"finish_reason":"length","stop_reason":null,"token_ids":%s,"prompt_token_ids":%s}],"usage":%s%s}`,
		a.id, a.created, quoted(a.Model), text, a.told(ids), a.told(a.prompt), a.usage(), signed)
}

const signed = `,"system_fingerprint":"vllm-0.32.0-7d9cf7eb"`

// chunk returns an event of vLLM's, with one choice or none.
func (a *answer) chunk(choice, more string) string {
	object := "text_completion"
	if a.kind == chat {
		object = "chat.completion.chunk"
	}
	return fmt.Sprintf("data: {\"id\":\"%s\",\"object\":\"%s\",\"created\":%d,\"model\":%s,\"choices\":[%s]%s}\n\n",
		a.id, object, a.created, quoted(a.Model), choice, more)
}

// generated returns an event of SGLang's that tells what is new.
func (a *answer) generated(text, count string, ids []int, first, last bool) string {
	finish, versions, more := "null", "", ""
	second := fmt.Sprintf("%d", a.created)
	if last {
		finish = fmt.Sprintf(`{"type":"length","length":%d}`, a.tokens)
		versions = fmt.Sprintf(`"weight_versions":[{"version":"default","start":0,"end":%d}],`, a.tokens)
		more = `,"e2e_latency":0.1716997910000373,"request_received_ts":` + second + `.3788273,` +
			`"first_token_latency":0.10311654700012696,"api_server_dispatch_finish_ts":` + second + `.3794656,` +
			`"response_sent_to_client_ts":` + second + `.4826703,"request_finished_ts":` + second + `.550527,` +
			`"decode_throughput":43.74246280919465`
	} else if first {
		more = `,"response_sent_to_client_ts":` + second + `.4826703`
	}
	return fmt.Sprintf("data: {\"text\":\"%s\",\"output_ids\":%s,\"meta_info\":{\"id\":%s,\"finish_reason\":%s,"+
		"\"prompt_tokens\":%d,\"weight_version\":\"default\",\"num_retractions\":0,\"storage_prefetch_wait\":0.0,"+
		"\"storage_staging_wait\":0.0,\"forward_entry_time\":%s.380717,\"prefill_finished_time\":%s.4766257,"+
		"\"queue_time\":0.0005010380000385339,\"reasoning_tokens\":0,\"completion_tokens\":%s,\"cached_tokens\":0,"+
		"%s\"cached_tokens_details\":null,\"dp_rank\":null%s}}\n\n",
		text, idList(ids), quoted(a.id), finish, len(a.prompt), second, second, count, versions, more)
}

func (a *answer) usage() string {
	created := ""
	if a.kind == chat {
		created = `,"created_cache_tokens":0`
	}
	return fmt.Sprintf(`{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d,"prompt_tokens_details":{"cached_tokens":0%s}}`,
		len(a.prompt), len(a.prompt)+a.tokens, a.tokens, created)
}

func (a *answer) told(ids []int) string {
	if !a.ReturnTokenIDs {
		return "null"
	}
	return idList(ids)
}

func idList(ids []int) string {
	list := make([]byte, 0, 2+6*len(ids))
	list = append(list, '[')
	for place, id := range ids {
		if place > 0 {
			list = append(list, ',')
		}
		list = strconv.AppendInt(list, int64(id), 10)
	}
	return string(append(list, ']'))
}

func quoted(text string) string {
	encoded, _ := json.Marshal(text)
	return string(encoded)
}
