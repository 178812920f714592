package config

import "strings"

// Problem is something in the configuration that cannot be used, or in
// Config.Warnings something that had better be changed.
type Problem struct {
	File     string // path with line, or what else set the property, or where it is to be set
	Property string // "" when the file as a whole is meant
	What     string // what is wrong, without a full stop
	Remedy   string // what to do, an imperative sentence without a full stop
}

// Error is "file: property: what. Try: remedy".
func (p Problem) Error() string {
	place := p.File
	if p.Property != "" {
		place += ": " + p.Property
	}
	return place + ": " + p.What + ". Try: " + p.Remedy
}

// Problems are all that is wrong with a configuration. Load returns it as its
// error.
type Problems []Problem

// Error has one line for each problem.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, problem := range p {
		lines[i] = problem.Error()
	}
	return strings.Join(lines, "\n")
}
