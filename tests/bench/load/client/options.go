package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

const usage = `usage: client grpc|sse PORT STREAMS CONNECTIONS TOKENS PATH BODY_FILE [SECONDS_MAX] [options]
  --ramp N          open N calls a second; 0, the default: all at once
  --hold SECONDS    when every stream is open and has told a token, say "held" on standard error, keep all open
                    for so long, and stop
  --seconds-max N   stop after so many seconds; what is still open then has failed; default 120
  --header "K: V"   send this as well; may come several times`

// options is what a measurement is to do.
type options struct {
	grpc        bool
	port        int
	streams     int
	connections int
	tokens      int
	path        string
	body        []byte
	headers     [][2]string
	ramp        float64
	hold        time.Duration
	most        time.Duration
}

// parseOptions reads the command line, in which options may stand anywhere.
func parseOptions(arguments []string) (*options, error) {
	o := &options{most: 120 * time.Second}
	flags := flag.NewFlagSet("client", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	hold := flags.Float64("hold", 0, "")
	most := flags.Float64("seconds-max", 0, "")
	flags.Float64Var(&o.ramp, "ramp", 0, "")
	flags.Func("header", "", func(line string) error {
		name, value, found := strings.Cut(line, ":")
		if !found || name == "" {
			return errors.New("a header is NAME: VALUE")
		}
		o.headers = append(o.headers, [2]string{strings.ToLower(name), strings.TrimSpace(value)})
		return nil
	})
	var words []string
	for {
		if err := flags.Parse(arguments); err != nil {
			return nil, err
		}
		arguments = flags.Args()
		if len(arguments) == 0 {
			break
		}
		words, arguments = append(words, arguments[0]), arguments[1:]
	}
	if len(words) == 8 {
		seconds, err := strconv.ParseFloat(words[7], 64)
		if err != nil {
			return nil, fmt.Errorf("%q is no number of seconds", words[7])
		}
		o.most = duration(seconds)
		words = words[:7]
	}
	if len(words) != 7 {
		return nil, errors.New("7 or 8 arguments are needed")
	}
	if *most > 0 {
		o.most = duration(*most)
	}
	o.hold = duration(*hold)
	switch words[0] {
	case "grpc":
		o.grpc = true
	case "sse":
	default:
		return nil, fmt.Errorf("%q is neither grpc nor sse", words[0])
	}
	numbers := []*int{&o.port, &o.streams, &o.connections, &o.tokens}
	for place, into := range numbers {
		number, err := strconv.Atoi(words[place+1])
		if err != nil || number < 1 {
			return nil, fmt.Errorf("%q is no number from 1", words[place+1])
		}
		*into = number
	}
	o.path = words[5]
	var err error
	o.body, err = os.ReadFile(words[6])
	return o, err
}

func duration(seconds float64) time.Duration {
	return time.Duration(seconds * float64(time.Second))
}
