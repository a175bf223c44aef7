package main

// Fields of tokenwire.v1.Event and of the Delta in it.
const (
	deltaField = 3
	textField  = 2
	lengthType = 2
)

// eventText returns the text of an event's delta; nothing for other events, whatever digits they have. It returns
// false for what is no protobuf message.
func eventText(message []byte) ([]byte, bool) {
	delta, fine := field(message, deltaField)
	if !fine || delta == nil {
		return nil, fine
	}
	return field(delta, textField)
}

// field returns the last value of a field of bytes, as protobuf has it; nil if there is none.
func field(message []byte, wanted uint64) ([]byte, bool) {
	var found []byte
	for len(message) > 0 {
		key, n := varint(message)
		if n == 0 || key>>3 == 0 {
			return nil, false
		}
		message = message[n:]
		size := uint64(0)
		switch key & 7 {
		case 0:
			if _, n = varint(message); n == 0 {
				return nil, false
			}
			size = uint64(n)
		case 1:
			size = 8
		case lengthType:
			if size, n = varint(message); n == 0 {
				return nil, false
			}
			message = message[n:]
		case 5:
			size = 4
		default:
			return nil, false
		}
		if size > uint64(len(message)) {
			return nil, false
		}
		if key == wanted<<3|lengthType {
			found = message[:size]
		}
		message = message[size:]
	}
	return found, true
}

// varint reads a number and returns how many bytes it takes; 0: it is none.
func varint(data []byte) (uint64, int) {
	var number uint64
	for place, part := range data {
		if place == 10 {
			return 0, 0
		}
		number |= uint64(part&0x7f) << (7 * place)
		if part < 0x80 {
			return number, place + 1
		}
	}
	return 0, 0
}
