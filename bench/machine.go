package main

import (
	"os"
	"runtime"
	"strings"
)

// A machine describes the hardware and system of a run.
type machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Kernel string `json:"kernel"`
	System string `json:"system"`
	Go     string `json:"go"`
}

func thisMachine() machine {
	return machine{
		CPU:    fileValue("/proc/cpuinfo", "model name", ":"),
		Cores:  runtime.NumCPU(),
		Kernel: "Linux " + firstWord("/proc/sys/kernel/osrelease"),
		System: strings.Trim(fileValue("/etc/os-release", "PRETTY_NAME", "="), `"`),
		Go:     runtime.Version() + " " + runtime.GOARCH,
	}
}

// fileValue returns the value of a key in a file, or "unknown".
func fileValue(path, key, separator string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(text)) {
		if k, v, ok := strings.Cut(line, separator); ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return "unknown"
}

func firstWord(path string) string {
	text, err := os.ReadFile(path)
	if fields := strings.Fields(string(text)); err == nil && len(fields) > 0 {
		return fields[0]
	}
	return "unknown"
}
