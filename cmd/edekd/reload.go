package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/edekd/edekd/internal/config"
	"github.com/edekd/edekd/internal/watch"
)

const (
	// lookEvery is how often the files of what can be reloaded are looked at. A
	// change is in force within two of them.
	lookEvery = 400 * time.Millisecond
	// retryShare bounds the time that is spent on parts that cannot be read: one
	// is left alone for so many times as long as reading it took.
	retryShare = 10
)

// processStart is before any file was read.
var processStart = time.Now()

// reloader re-reads what can change while edekd serves: on SIGHUP all of it,
// and by itself each part whose files have changed. A part that could not be
// read is tried again and again, since what mends it may be a file that only
// the configuration not yet in force names.
type reloader struct {
	log   *slog.Logger
	parts []*part
}

// part is something that is read from files as a whole or not at all. Parts are
// read side by side: what one waits for, names to be resolved above all, keeps no
// other from being read in time. So load must mind what it shares with others.
type part struct {
	name  string          // for the log
	files func() []string // what it was read from; nil: only SIGHUP reads it again
	// lasting are files that count as broken when they are gone: without them
	// there would be no rules, which opens what the rules close.
	lasting func() []string
	load    func() error // on error what was in force stays

	mu     sync.Mutex // held while it is read; guards the rest
	seen   watch.Set
	had    map[string]bool // of lasting: those that were there
	unread bool            // what is there now was not read as a whole
	told   string          // of what kept it from being read
	next   time.Time       // when to read again what is unread
}

// add makes p known, whose files were read since the start of the process.
func (r *reloader) add(p *part) {
	p.had = map[string]bool{}
	p.note(processStart)
	r.parts = append(r.parts, p)
}

// note takes down what p was read from, which began at the given time.
func (p *part) note(began time.Time) {
	p.unread, p.told = p.files != nil && p.seen.Add(p.files(), began), ""
	if p.lasting == nil {
		return
	}
	for _, path := range p.lasting() {
		if _, err := os.Stat(path); err == nil {
			p.had[path] = true
		}
	}
}

// all reads every part again. What cannot be read stays as it was and keeps
// nothing else from being read.
func (r *reloader) all() error {
	var done []string
	var errs []error
	for _, p := range r.parts {
		if err := p.again(); err != nil {
			errs = append(errs, err)
		} else {
			done = append(done, p.name)
		}
	}
	if len(done) > 0 {
		r.log.Info("reloaded: " + strings.Join(done, ", "))
	}
	return errors.Join(errs...)
}

// watch reads parts again when their files have changed, until ctx ends.
func (r *reloader) watch(ctx context.Context) {
	for _, p := range r.parts {
		if p.files != nil {
			go r.watchPart(ctx, p)
		}
	}
}

func (r *reloader) watchPart(ctx context.Context, p *part) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if done, err := p.look(); err != nil {
			r.log.Error("reload failed, what was in force stays", "error", err)
		} else if done {
			r.log.Info("reloaded: " + p.name)
		}
	}
}

// again reads the part whether something changed or not.
func (p *part) again() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.files != nil {
		p.seen.Changed(p.files()) // what is read now need not be read again
	}
	p.told = ""
	return p.reload()
}

// look reads the part if it has to be read, and reports whether it was. The
// error is for what was not told before.
func (p *part) look() (done bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.seen.Changed(p.files()) && !(p.unread && !time.Now().Before(p.next)) {
		return false, nil
	}
	told := p.told
	err = p.reload()
	if err != nil && p.told == told {
		return false, nil
	}
	return err == nil, err
}

func (p *part) reload() error {
	began := time.Now()
	if err := p.read(); err != nil {
		p.unread, p.told = true, err.Error()
		p.next = time.Now().Add(retryShare * time.Since(began))
		return fmt.Errorf("%s: %w", p.name, err)
	}
	p.note(began)
	return nil
}

func (p *part) read() error {
	var gone config.Problems
	if p.lasting != nil {
		for _, path := range p.lasting() {
			if _, err := os.Stat(path); p.had[path] && err != nil {
				gone = append(gone, config.Problem{File: path, What: "it was there and is gone: " + err.Error(),
					Remedy: "put it back, or restart edekd to do without it"})
			}
		}
	}
	if len(gone) > 0 {
		return gone
	}
	return p.load()
}
