package conf

// deprecated maps retired names to the names that replace them. It is the
// table that Hadoop 3.4.3's hadoop-common itself carries, as its
// Configuration.dumpDeprecatedKeys prints it in a KMS; the retired names of
// HDFS, YARN and MapReduce are known only inside those programs.
var deprecated = map[string][]string{
	"dfs.df.interval":                   {"fs.df.interval"},
	"dfs.nfs.exports.allowed.hosts":     {"nfs.exports.allowed.hosts"},
	"dfs.umaskmode":                     {"fs.permissions.umask-mode"},
	"fs.default.name":                   {"fs.defaultFS"},
	"hadoop.configured.node.mapping":    {"net.topology.configured.node.mapping"},
	"topology.node.switch.mapping.impl": {"net.topology.node.switch.mapping.impl"},
	"topology.script.file.name":         {"net.topology.script.file.name"},
	"topology.script.number.args":       {"net.topology.script.number.args"},
}
