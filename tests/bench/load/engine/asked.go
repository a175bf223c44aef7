package main

import (
	"encoding/json"
	"errors"
)

// What servers take where a request sets no limit.
const (
	completionTokensDefault = 16
	chatTokensDefault       = 100
	generateTokensDefault   = 128
)

var errOneChoice = errors.New("n must be 1 and the prompt a single one")

// asked is what matters here of a request's body, in any of the dialects.
type asked struct {
	Model               string          `json:"model"`
	Prompt              json.RawMessage `json:"prompt"`
	Messages            json.RawMessage `json:"messages"`
	Text                json.RawMessage `json:"text"`
	InputIDs            json.RawMessage `json:"input_ids"`
	RID                 string          `json:"rid"`
	Stream              bool            `json:"stream"`
	MaxTokens           *int            `json:"max_tokens"`
	MaxCompletionTokens *int            `json:"max_completion_tokens"`
	N                   *int            `json:"n"`
	ReturnTokenIDs      bool            `json:"return_token_ids"`
	StreamOptions       struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
	SamplingParams struct {
		MaxNewTokens *int `json:"max_new_tokens"`
		N            *int `json:"n"`
	} `json:"sampling_params"`

	tokens int
	prompt []int
}

// parseAsked reads a body. The prompt's tokens are its bytes, where it was not given as tokens.
func parseAsked(kind dialect, body []byte) (*asked, error) {
	a := &asked{}
	if err := json.Unmarshal(body, a); err != nil {
		return nil, err
	}
	if (a.N != nil && *a.N != 1) || (a.SamplingParams.N != nil && *a.SamplingParams.N != 1) {
		return nil, errOneChoice
	}
	limits := []*int{a.MaxTokens}
	prompt := a.Prompt
	a.tokens = completionTokensDefault
	switch kind {
	case chat:
		limits = append(limits, a.MaxCompletionTokens)
		prompt = a.Messages
		a.tokens = chatTokensDefault
	case generate:
		limits[0] = a.SamplingParams.MaxNewTokens
		if prompt = a.Text; len(prompt) == 0 {
			prompt = a.InputIDs
		}
		a.tokens = generateTokensDefault
	}
	for _, limit := range limits {
		if limit != nil {
			a.tokens = *limit
		}
	}
	if a.tokens < 1 {
		return nil, errors.New("at least one token must be asked for")
	}
	var err error
	a.prompt, err = promptTokens(prompt)
	return a, err
}

// promptTokens returns the tokens of a prompt as it stands in JSON: a text, tokens, or the messages of a chat.
func promptTokens(prompt json.RawMessage) ([]int, error) {
	var text string
	var ids []int
	switch {
	case len(prompt) == 0:
		return nil, errors.New("there is no prompt")
	case json.Unmarshal(prompt, &text) == nil:
		return tokenize(text), nil
	case json.Unmarshal(prompt, &ids) == nil:
		return ids, nil
	}
	var messages []map[string]json.RawMessage
	if json.Unmarshal(prompt, &messages) != nil {
		return nil, errOneChoice
	}
	return tokenize(string(prompt)), nil
}

// tokenize returns a text's tokens: its bytes.
func tokenize(text string) []int {
	ids := make([]int, len(text))
	for place := range len(text) {
		ids[place] = int(text[place])
	}
	return ids
}

// detokenize returns the text of tokens; those that are no bytes are told as a letter. It fails over an unknown one.
func detokenize(ids []int) (string, bool) {
	text := make([]byte, len(ids))
	for place, id := range ids {
		switch {
		case id < 0 || id >= vocabulary:
			return "", false
		case id < 256:
			text[place] = byte(id)
		default:
			text[place] = 'x'
		}
	}
	return string(text), true
}
