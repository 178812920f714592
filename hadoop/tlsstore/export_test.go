package tlsstore

// For tests that need package interop, which imports rooms above this one.
var (
	Fixture = fixture
	XML     = xmlFile
	Serve   = serve
)
