package main

import "testing"

func TestQuietly(t *testing.T) {
	var q quietly
	if !q.over() || q.over() {
		t.Error("the first of two is told, and no other")
	}
	if last := q.last.Load(); *last == last.Round(0) {
		t.Error("setting the clock back silences the log")
	}
}
