package main

import (
	"slices"
	"strconv"
)

// Why calls fail where no status says it.
const (
	wrongCount = "tokens"
	wasClosed  = "closed"
	wasGarbled = "garbled"
	hadError   = "error"
	tookLong   = "timeout"
	// Only over SSE, where each call has a connection of its own.
	notConnected = "connect"
)

// call is one stream, as far as counting goes.
type call struct {
	// sent is when its request was; 0: not yet.
	sent   uint64
	tokens int
	over   bool
	// value is made of the last digits that came, length of them.
	value  uint64
	length int
}

// tally counts what comes.
type tally struct {
	wanted   int
	done     int
	failures map[string]int
	// waiting is how many calls were sent, are not over, and have told no token yet.
	waiting       int
	tokens        int
	messages      int
	tokenMessages int
	bytes         int
	added         histogram
	firsts        []uint64
	firstToken    uint64
	lastToken     uint64
	firstSent     uint64
	lastEnd       uint64
}

func newTally(tokens int) *tally {
	return &tally{wanted: tokens, failures: map[string]int{}}
}

// sent notes that a call's request goes out.
func (t *tally) sent(c *call, now uint64) {
	c.sent = now
	t.waiting++
	if t.firstSent == 0 {
		t.firstSent = now
	}
}

// text counts the tokens in a text that goes on where the last one of the call ended: a token may come in two pieces.
func (t *tally) text(c *call, text []byte, now uint64) {
	before := c.tokens
	value, length := c.value, c.length
	for _, letter := range text {
		digit := letter - '0'
		if digit > 9 {
			value, length = 0, 0
			continue
		}
		value = value*10 + uint64(digit)
		if length++; length == 16 {
			t.token(c, value, now)
			value, length = 0, 0
		}
	}
	c.value, c.length = value, length
	if c.tokens == before {
		return
	}
	t.tokenMessages++
	t.lastToken = now
	if before == 0 {
		t.waiting--
		t.firsts = append(t.firsts, now-c.sent)
		if t.firstToken == 0 {
			t.firstToken = now
		}
	}
}

func (t *tally) token(c *call, sent, now uint64) {
	c.tokens++
	t.tokens++
	late := uint64(0)
	if now > sent {
		late = now - sent
	}
	t.added.add(late)
}

// ended notes how a call ended; the empty reason is well, if all its tokens came.
func (t *tally) ended(c *call, reason string, now uint64) {
	if c.over {
		return
	}
	c.over = true
	t.lastEnd = now
	if c.sent > 0 && c.tokens == 0 {
		t.waiting--
	}
	if reason == "" && c.tokens != t.wanted {
		reason = wrongCount
	}
	if reason == "" {
		t.done++
	} else {
		t.failures[reason]++
	}
}

func (t *tally) failed() int {
	sum := 0
	for _, count := range t.failures {
		sum += count
	}
	return sum
}

// ttft returns a percentile of the times to the first token.
func (t *tally) ttft(share float64) uint64 {
	if len(t.firsts) == 0 {
		return 0
	}
	slices.Sort(t.firsts)
	return t.firsts[int(share*float64(len(t.firsts)-1))]
}

// status names the status of a call that failed; 0 is none that did.
func status(code int) string {
	if code == 0 {
		return ""
	}
	return strconv.Itoa(code)
}
