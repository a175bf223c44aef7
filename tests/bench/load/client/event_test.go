package main

import (
	"bytes"
	"testing"
)

func lengthed(number byte, content []byte) []byte {
	return append([]byte{number<<3 | 2, byte(len(content))}, content...)
}

const token = "0000001234567890"

func TestOnlyTheTextOfADeltaIsRead(t *testing.T) {
	text := lengthed(2, []byte(token))
	offset := []byte{3 << 3, 0xb0, 0x31}
	cursor := lengthed(14, []byte{8, 0x30})
	elapsed := []byte{15 << 3, 0x35}
	fixed := []byte{9<<3 | 5, '0', '0', '0', '0', 10<<3 | 1, '1', '1', '1', '1', '1', '1', '1', '1'}
	digest := lengthed(6, []byte(token+token))
	for name, one := range map[string]struct {
		message []byte
		want    string
	}{
		"a delta":               {lengthed(3, text), token},
		"a delta among others":  {bytes.Join([][]byte{fixed, lengthed(3, append(append([]byte{}, text...), offset...)), cursor, elapsed}, nil), token},
		"reasoning":             {lengthed(4, text), ""},
		"an end with a digest":  {lengthed(7, lengthed(4, digest)), ""},
		"a start with an id":    {lengthed(1, lengthed(1, []byte(token))), ""},
		"logprobs in the delta": {lengthed(3, append(lengthed(7, lengthed(2, []byte(token))), text...)), token},
		"nothing":               {nil, ""},
	} {
		got, fine := eventText(one.message)
		if !fine || string(got) != one.want {
			t.Errorf("%s: %q %v", name, got, fine)
		}
	}
}

func TestWhatIsNoMessageIsSeen(t *testing.T) {
	for _, message := range []string{"\x1a\x05ab", "\x1a", "\x1a\x80", "\x00", "\x1b", "\x18\xff", "\x1d\x01", "\x19\x01",
		"\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "\x1a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"} {
		if got, fine := eventText([]byte(message)); fine {
			t.Errorf("%x: %q", message, got)
		}
	}
}

func FuzzAMessageIsReadWithoutAPanic(f *testing.F) {
	f.Add(lengthed(3, lengthed(2, []byte(token))))
	f.Add([]byte("\x1a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"))
	f.Fuzz(func(t *testing.T, message []byte) {
		if got, _ := eventText(message); len(got) > len(message) {
			t.Error("more than there was")
		}
	})
}
