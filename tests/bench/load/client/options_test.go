package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestOptionsMayStandAnywhere(t *testing.T) {
	body := filepath.Join(t.TempDir(), "body")
	if err := os.WriteFile(body, []byte("asked"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"grpc 1 2 3 4 /p BODY 9 --ramp 5 --hold 1.5 --header K:v",
		"--ramp 5 grpc 1 2 --hold=1.5 3 4 /p BODY --seconds-max 9 -header K:v",
	} {
		o, err := parseOptions(strings.Fields(strings.ReplaceAll(line, "BODY", body)))
		if err != nil {
			t.Fatal(err)
		}
		if !o.grpc || o.port != 1 || o.streams != 2 || o.connections != 3 || o.tokens != 4 || o.path != "/p" ||
			string(o.body) != "asked" || o.most != 9*time.Second || o.ramp != 5 || o.hold != 1500*time.Millisecond ||
			o.headers[0] != [2]string{"k", "v"} {
			t.Errorf("%s: %+v", line, o)
		}
	}
	for _, line := range []string{"", "grpc 1 2 3 4 /p", "ftp 1 2 3 4 /p BODY", "sse 0 2 3 4 /p BODY", "sse 1 2 3 x /p BODY",
		"sse 1 2 3 4 /p BODY nine", "sse 1 2 3 4 /p BODY 1 2", "sse 1 2 3 4 /p none", "sse 1 2 3 4 /p BODY --new 1"} {
		if _, err := parseOptions(strings.Fields(strings.ReplaceAll(line, "BODY", body))); err == nil {
			t.Errorf("%q is fine", line)
		}
	}
}
