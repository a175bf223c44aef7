//go:build linux

package main

import "tokenwire/bench/load/internal/cost"

// result is the line that is printed.
type result struct {
	Streams         int            `json:"streams"`
	Done            int            `json:"done"`
	Failed          int            `json:"failed"`
	Held            int            `json:"held"`
	CallsFailed     map[string]int `json:"calls_failed"`
	Tokens          int            `json:"tokens"`
	Expected        int            `json:"expected"`
	Messages        int            `json:"messages"`
	TokenMessages   int            `json:"token_messages"`
	Bytes           int            `json:"bytes"`
	WallSeconds     float64        `json:"wall_seconds"`
	Added50         uint64         `json:"added_p50_us"`
	Added90         uint64         `json:"added_p90_us"`
	Added99         uint64         `json:"added_p99_us"`
	Added999        uint64         `json:"added_p999_us"`
	AddedMost       uint64         `json:"added_max_us"`
	TTFT50          uint64         `json:"ttft_p50_us"`
	TTFT99          uint64         `json:"ttft_p99_us"`
	TokensPerSecond float64        `json:"tokens_per_second"`
	CPUSeconds      float64        `json:"cpu_seconds"`
	MicrosPerToken  float64        `json:"us_per_token"`
}

func (l *load) result() *result {
	t := l.tally
	r := &result{
		Streams: l.streams, Done: t.done, Failed: t.failed(), Held: l.held, CallsFailed: t.failures,
		Tokens: t.tokens, Expected: l.streams * l.tokens,
		Messages: t.messages, TokenMessages: t.tokenMessages, Bytes: t.bytes,
		Added50: t.added.percentile(.5), Added90: t.added.percentile(.9), Added99: t.added.percentile(.99),
		Added999: t.added.percentile(.999), AddedMost: t.added.most,
		TTFT50: t.ttft(.5), TTFT99: t.ttft(.99), CPUSeconds: cost.CPUSeconds(),
	}
	if l.held > 0 {
		// A stream that was stopped owes no more than it has told.
		r.Expected = 0
		for _, one := range l.calls {
			if one.over {
				r.Expected += l.tokens
			} else {
				r.Expected += one.tokens
			}
		}
	}
	if t.firstSent > 0 {
		r.WallSeconds = float64(max(t.lastEnd, t.lastToken, t.firstSent)-t.firstSent) / 1e6
	}
	if t.lastToken > t.firstToken {
		r.TokensPerSecond = float64(t.tokens) * 1e6 / float64(t.lastToken-t.firstToken)
	}
	if t.tokens > 0 {
		r.MicrosPerToken = r.CPUSeconds * 1e6 / float64(t.tokens)
	}
	return r
}
