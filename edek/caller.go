package edek

// Caller is who asks, as identity travels below the front end.
type Caller struct {
	User string // effective short name, the one that rights are checked for
	Full string // effective full name, as audited ("hdfs/nn1@REALM"); equals User under simple authentication
	Real string // short name of the real user behind a proxied call, empty when not proxied
}
