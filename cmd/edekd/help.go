package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/edekd/edekd/internal/config"
)

const helpHead = `edekd - a key management server for Hadoop

SYNOPSIS
  edekd --config DIR          serve, in the foreground
  edekd check-config DIR      say whether DIR can be served, and what to mend
  edekd --version
  edekd --help

DESCRIPTION
  edekd takes the place of the Hadoop KMS: NameNodes, HDFS clients, hadoop key
  and everything else that speaks the KMS REST interface use it unmodified,
  through a key provider URI like kms://http@host:9600/kms.

  DIR is a folder with Hadoop's own files: core-site.xml, kms-site.xml,
  kms-acls.xml and, for TLS, ssl-server.xml. Where keys live is named by
  hadoop.kms.key.provider.uri; without it, edekd keeps them in a file of its
  own in the state folder.

SIGNALS
  SIGTERM, SIGINT   /readyz fails at once and answers carry Connection: close;
                    after edekd.drain.seconds the port is closed; exit code 0
                    within ten seconds. A second signal skips the wait.
  SIGHUP            reopens the log files and reads again, at once, what is
                    read again within a second of a change on disk anyway:
                    kms-acls.xml, name rules, proxy users and group settings,
                    keytab and krb5.conf, TLS stores, the file of the signing
                    secret. What cannot be read stays as it was, and the log
                    says why. Groups of users are asked for anew.

EXIT CODES
  0  stopped as asked
  1  broke down while serving
  2  the configuration cannot be served; standard error says why and what to try

OPEN PATHS
  /healthz, /readyz   for probes and balancers
  /metrics            Prometheus text, under simple authentication; under
                      kerberos, and /jmx in any case, for callers who
                      authenticate, unless
                      hadoop.kms.authentication.kerberos.endpoint.whitelist
                      lists them, or for all on edekd.metrics.address

PROPERTIES OF ITS OWN, in kms-site.xml
`

func printHelp(w io.Writer) {
	io.WriteString(w, helpHead)
	for _, p := range config.Properties() {
		fmt.Fprintf(w, "  %s (default %s)\n", p.Name, orNone(p.Default))
		for _, line := range wrap(p.Meaning, 72) {
			fmt.Fprintf(w, "      %s\n", line)
		}
	}
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// wrap breaks text into lines of at most width bytes, at spaces.
func wrap(text string, width int) (lines []string) {
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines, line = append(lines, line), ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
