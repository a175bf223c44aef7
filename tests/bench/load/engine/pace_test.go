package main

import (
	"math/rand/v2"
	"testing"
)

func TestEveryStreamIsDueOnceATimeAndNeverEarly(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, rate := range []float64{0.1, 3, 50, 999, 5000} {
		w := &wheel{}
		p := newPace(rate, false)
		now := uint64(1_000_000_000)
		told := map[*stream]int{}
		begun := map[*stream]float64{}
		put := func() {
			one := &stream{due: p.first(now, random.Float64())}
			begun[one] = one.due
			w.put(one, now)
		}
		for range 50 {
			put()
		}
		for range 3000 {
			now += uint64(random.IntN(9000))
			if random.IntN(100) == 0 {
				put()
			}
			w.turn(now, func(one *stream) {
				if one.due > float64(now) {
					t.Fatalf("%v early", one.due-float64(now))
				}
				for one.due <= float64(now) {
					told[one]++
					one.due += p.periodMicros
				}
				w.put(one, now)
			})
		}
		for one, first := range begun {
			// Those of the last step may wait for the next look.
			least := int((float64(now-stepMicros) - first) / p.periodMicros)
			if most := int((float64(now)-first)/p.periodMicros) + 1; told[one] < least || told[one] > most {
				t.Errorf("at %v: %d tokens, not %d to %d", rate, told[one], least, most)
			}
		}
		if w.waiting != len(begun) {
			t.Errorf("%d of %d wait", w.waiting, len(begun))
		}
	}
}

func TestEndedStreamsLeaveTheWheel(t *testing.T) {
	w := &wheel{}
	for place := range 10 {
		w.put(&stream{due: float64(5000 + place), ended: place > 0}, 1000)
	}
	told := 0
	w.turn(20_000, func(one *stream) {
		told++
		if one.ended {
			t.Error("an ended stream goes on")
		}
	})
	if w.waiting != 0 || told != 1 {
		t.Errorf("%d are left, %d were told", w.waiting, told)
	}
}

func TestAStreamThatIsLateIsDueAtTheNextLook(t *testing.T) {
	w := &wheel{}
	w.put(&stream{due: 500_000}, 100_000)
	w.turn(200_000, func(*stream) {})
	w.put(&stream{due: 150_000}, 200_000)
	told := 0
	w.turn(201_000, func(*stream) { told++ })
	if told != 1 {
		t.Errorf("%d were told", told)
	}
}

func TestStreamsTickTogetherWhereThatIsAsked(t *testing.T) {
	p := newPace(50, true)
	for now := uint64(1_000_000); now < 1_020_000; now += 777 {
		if got := p.first(now, rand.Float64()); got != 1_020_000 {
			t.Errorf("a stream of %d ticks first at %v", now, got)
		}
	}
	apart := newPace(50, false)
	if apart.first(1_000_000, 0) != 1_000_000 || apart.first(1_000_000, 0.5) != 1_010_000 {
		t.Error("a random phase is not where it should be")
	}
}

func TestPortsAreRead(t *testing.T) {
	port, p, err := parsePort("9100:50:1")
	if port != 9100 || p.periodMicros != 20_000 || !p.together || err != nil {
		t.Error(port, p, err)
	}
	if port, p, err = parsePort("0:0"); port != 0 || p.periodMicros != 0 || p.together || err != nil {
		t.Error(port, p, err)
	}
	for _, wrong := range []string{"", "1", "1:", ":1", "1:-1", "1:x", "70000:1", "1:1:2", "1:1:1:1", "1:1e9"} {
		if _, _, err := parsePort(wrong); err == nil {
			t.Errorf("%q is a port", wrong)
		}
	}
}
