package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"strconv"
	"time"

	"github.com/edekd/edekd/internal/config"
)

const (
	// profileTime is what the longest profile covers, profileWriteTime how long a
	// client may take to read one, from its end on.
	profileTime      = 5 * time.Minute
	profileWriteTime = time.Minute
	// profilesAtOnce is how many profiles may be made at a time.
	profilesAtOnce = 4

	profileHeaderTime = 10 * time.Second // for a request to arrive
	profileIdleTime   = time.Minute
)

// profileServer hands out Go's profiles of this process, as net/http/pprof has
// them, to whoever reaches its port on the loopback interface.
type profileServer struct {
	http.Server
	listener net.Listener
	busy     chan struct{} // holds a token for each profile being made
}

// listenProfile opens the port for profiles, where there is to be one.
func listenProfile(c *config.Config, log *slog.Logger) (*profileServer, error) {
	if c.HTTP.ProfileAddress == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", c.HTTP.ProfileAddress)
	if err != nil {
		return nil, c.Problem("edekd.profile.address", "cannot listen: "+err.Error(), "another port, or 0 for a free one")
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	s := &profileServer{listener: &patientListener{Listener: l, log: log}, busy: make(chan struct{}, profilesAtOnce)}
	s.Server = http.Server{Handler: s.guard(mux), ReadHeaderTimeout: profileHeaderTime, ReadTimeout: profileHeaderTime,
		WriteTimeout: profileWriteTime, IdleTimeout: profileIdleTime, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
	return s, nil
}

// guard refuses what is too much, and what could show a part of a key.
func (s *profileServer) guard(profiles http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			http.Error(w, "this port is for looking only", http.StatusMethodNotAllowed)
			return
		}
		if debug, _ := strconv.Atoi(r.FormValue("debug")); debug > 1 {
			http.Error(w, "stacks with the arguments of calls are not shown: an argument may be part of a key. Try: debug=1", http.StatusForbidden)
			return
		}
		// What is no number means the default to net/http/pprof, or is refused by it.
		if seconds, _ := strconv.ParseFloat(r.FormValue("seconds"), 64); !(seconds <= profileTime.Seconds()) {
			http.Error(w, fmt.Sprintf("a profile cannot be that long. Try: seconds=%.0f at most", profileTime.Seconds()), http.StatusBadRequest)
			return
		}
		select {
		case s.busy <- struct{}{}:
			defer func() { <-s.busy }()
			profiles.ServeHTTP(w, r)
		default:
			http.Error(w, "too many profiles are being made. Try: again when they are done", http.StatusServiceUnavailable)
		}
	})
}

// address is where the profiles begin.
func (s *profileServer) address() string {
	return "http://" + s.listener.Addr().String() + "/debug/pprof/"
}

// serve answers until Close, which also ends profiles that are being made.
func (s *profileServer) serve() error {
	if err := s.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
