package main

// Where HTTP/2's static table (RFC 7541, appendix A) has the names, and some whole fields, of a request.
const (
	authorityName = 1
	methodPost    = 3
	pathName      = 4
	schemeHTTP    = 6
	contentType   = 31
	userAgent     = 58
)

// requestHeaders returns the head of a gRPC call: literals that no table remembers, without Huffman's code, so that
// the same bytes do for every call of every connection.
func requestHeaders(path, authority string, more [][2]string) []byte {
	block := []byte{0x80 | methodPost, 0x80 | schemeHTTP}
	block = appendLiteral(block, pathName, "", path)
	block = appendLiteral(block, authorityName, "", authority)
	block = appendLiteral(block, 0, "te", "trailers") // codespell:ignore te
	block = appendLiteral(block, contentType, "", "application/grpc")
	block = appendLiteral(block, userAgent, "", "tokenwire-load/1")
	for _, one := range more {
		block = appendLiteral(block, 0, one[0], one[1])
	}
	return block
}

// appendLiteral adds a field whose name stands in the static table, or with 0 for its place is told.
func appendLiteral(block []byte, place uint64, name, value string) []byte {
	block = appendInteger(block, 0, 4, place)
	if place == 0 {
		block = appendInteger(block, 0, 7, uint64(len(name)))
		block = append(block, name...)
	}
	block = appendInteger(block, 0, 7, uint64(len(value)))
	return append(block, value...)
}

// appendInteger adds a number whose first bits share a byte with the kind of field (RFC 7541, section 5.1).
func appendInteger(block []byte, kind byte, prefix int, number uint64) []byte {
	most := uint64(1)<<prefix - 1
	if number < most {
		return append(block, kind|byte(number))
	}
	block = append(block, kind|byte(most))
	for number -= most; number >= 0x80; number >>= 7 {
		block = append(block, byte(number)|0x80)
	}
	return append(block, byte(number))
}
