package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestEveryTokenIsCountedHoweverTheTextIsCut(t *testing.T) {
	text := ""
	for sent := range 40 {
		text += fmt.Sprintf("%016d", 1_000_000+sent)
	}
	for size := 1; size < 70; size++ {
		counted := newTally(40)
		one := &call{}
		counted.sent(one, 1_000_000)
		for rest := text; rest != ""; {
			piece := rest[:min(size, len(rest))]
			rest = rest[len(piece):]
			counted.text(one, []byte(piece), 1_000_100)
		}
		counted.ended(one, "", 1_000_100)
		if counted.tokens != 40 || counted.done != 1 || counted.added.percentile(0) != 61 || counted.added.most != 100 {
			t.Fatalf("in pieces of %d: %d tokens", size, counted.tokens)
		}
		if counted.firsts[0] != 100 || counted.waiting != 0 {
			t.Fatalf("in pieces of %d: %v, %d", size, counted.firsts, counted.waiting)
		}
	}
}

func TestOtherTextIsNoToken(t *testing.T) {
	counted, one := newTally(1), &call{}
	counted.sent(one, 1)
	counted.text(one, []byte("123456789012345 67890123456789a12345678901234567x"), 5)
	if counted.tokens != 1 {
		t.Errorf("%d tokens", counted.tokens)
	}
}

func TestACallThatEndsWellWithAnotherNumberOfTokensHasFailed(t *testing.T) {
	counted := newTally(2)
	for tokens := range 4 {
		one := &call{tokens: tokens}
		counted.sent(one, 1)
		counted.ended(one, "", 2)
		counted.ended(one, "1", 3)
	}
	if counted.done != 1 || counted.failures[wrongCount] != 3 || counted.failed() != 3 {
		t.Errorf("%d done, %v", counted.done, counted.failures)
	}
}

func TestPercentilesAreThoseOfTheSortedFigures(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	counted := &histogram{}
	var all []uint64
	for range 20_000 {
		one := uint64(random.ExpFloat64() * 50_000)
		all = append(all, one)
		counted.add(one)
	}
	slices.Sort(all)
	for _, share := range []float64{0, .1, .5, .9, .99, .999, 1} {
		want := all[int(share*float64(len(all)-1))]
		got := counted.percentile(share)
		if got != want && (want < exactMicros || max(got, want)-min(got, want) > want/1000) {
			t.Errorf("%v: %d is not %d", share, got, want)
		}
	}
	counted.add(1 << 62)
	if counted.percentile(1) > 1<<62 || (&histogram{}).percentile(.5) != 0 {
		t.Error("the ends are wrong")
	}
}
