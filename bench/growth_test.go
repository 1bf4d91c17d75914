package main

import (
	"slices"
	"testing"
)

func TestSizesAscend(t *testing.T) {
	if got, err := parseSizes("1,10,16000"); err != nil || !slices.Equal(got, []int{1, 10, 16000}) {
		t.Errorf("%v, %v", got, err)
	}
	for _, text := range []string{"", "0", "x", "10,1", "1,1", "1,"} {
		if got, err := parseSizes(text); err == nil {
			t.Errorf("%q: %v, no error", text, got)
		}
	}
}

func TestConnectionsStopAtTheMost(t *testing.T) {
	for most, want := range map[int][]int{1: {1}, 1000: {1, 10, 100, 1000}, 8900: {1, 10, 100, 1000, 4000, 8900}} {
		if got := connsUpTo(most); !slices.Equal(got, want) {
			t.Errorf("%d: %v, want %v", most, got, want)
		}
	}
}
