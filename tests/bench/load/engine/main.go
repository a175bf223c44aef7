//go:build linux

// Command engine writes tokens as vLLM and SGLang do, as steadily or as fast as it is told, and does nothing else.
//
//	engine PORT:RATE[:1] ...
//
// RATE is tokens per second and stream; 0 is as fast as the socket takes. With :1 all streams of the port tick together,
// as those of an engine do that decodes them in one batch. A port of 0 is one that the kernel chooses. What it listens
// to is told on standard error; what it has cost, in one line of JSON on standard output when it gets SIGTERM or SIGINT,
// and at GET /-/cost.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"tokenwire/bench/load/internal/cost"
)

func main() {
	model := flag.String("model", "meta-llama/Llama-3.1-8B-Instruct", "the model that is listed")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: engine [-model NAME] PORT:RATE[:1] ...")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*model, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "engine:", err)
		os.Exit(1)
	}
}

func run(model string, arguments []string) error {
	cost.Lean()
	server, err := newServer(model)
	if err != nil {
		return err
	}
	// Before anybody is told that it listens, and may end it.
	stops := make(chan os.Signal, 1)
	signal.Notify(stops, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-stops
		server.wake.Up()
	}()
	for _, argument := range arguments {
		port, pace, err := parsePort(argument)
		if err != nil {
			return err
		}
		if port, err = server.listen(port, pace); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "listening 127.0.0.1:%d\n", port)
	}
	server.serve()
	fmt.Println(string(server.cost()))
	return nil
}

// parsePort reads PORT:RATE[:1].
func parsePort(argument string) (int, pace, error) {
	parts := strings.Split(argument, ":")
	wrong := fmt.Errorf("%q is not PORT:RATE[:1]", argument)
	if len(parts) < 2 || len(parts) > 3 {
		return 0, pace{}, wrong
	}
	port, err := strconv.ParseUint(parts[0], 10, 16)
	if err != nil {
		return 0, pace{}, wrong
	}
	rate, err := strconv.ParseFloat(parts[1], 64)
	if err != nil || rate < 0 || rate > 1e6 {
		return 0, pace{}, wrong
	}
	together := false
	if len(parts) == 3 {
		if together, err = strconv.ParseBool(parts[2]); err != nil {
			return 0, pace{}, wrong
		}
	}
	return int(port), newPace(rate, together), nil
}
