package kms

// nodeChanged logs that a node went out of use or is used again: of several
// nodes, nobody would notice it otherwise.
func (c *Client) nodeChanged(i int, usable bool, why error) {
	log := c.config.Log.With("node", c.nodes[i].addr)
	if usable {
		log.Info("a server of the KMS behind is used again")
		return
	}
	if why != nil {
		log = log.With("error", why)
	}
	log.Warn("a server of the KMS behind is out of use until it answers edekd", "remedy", "see that it runs, can be reached from here, and lets edekd in")
}
