//go:build linux

// Command client opens many streams to a gateway, counts every token that comes and how late it is, and prints one line
// of JSON. A token is 16 digits: the microsecond of the machine's monotonic clock at which the engine sent it.
//
//	client grpc|sse PORT STREAMS CONNECTIONS TOKENS PATH BODY_FILE [SECONDS_MAX] [options]
//
// BODY_FILE holds the request, which asks for TOKENS tokens: a protobuf message for grpc, JSON for sse. Over SSE each
// stream has a connection of its own, whatever CONNECTIONS says. The exit status is 0 if there was something to measure,
// failed calls included.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"tokenwire/bench/load/internal/cost"
)

func main() {
	asked, err := parseOptions(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "client:", err)
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	cost.Lean()
	told, err := measure(asked)
	if err != nil {
		fmt.Fprintln(os.Stderr, "client:", err)
		os.Exit(1)
	}
	line, _ := json.Marshal(told)
	fmt.Println(string(line))
}
