// Package zookeeper keeps what several servers share in ZooKeeper, in the layout
// of Hadoop's Java servers, so that a Java KMS and edekd behind one address
// honour each other's cookies and delegation tokens: the secrets that sign
// cookies (ZKSignerSecretProvider) and the store of delegation tokens
// (ZKDelegationTokenSecretManager).
//
// With the auth type none every node is open to everybody who reaches ZooKeeper,
// as with Java; a warning says so. With sasl the connection is authenticated by
// Kerberos and the nodes belong to the first part of the principal, which all
// servers must have in common.
//
// The connection itself is not encrypted. Put a tunnel between hosts that do not
// trust their network.
package zookeeper

import (
	"context"
	"log/slog"
)

// Client is this server's part in what is shared. Make one with Open and Close
// it.
type Client struct {
	// Secrets and Tokens are nil where the configuration was.
	Secrets *Secrets
	Tokens  *Tokens

	conn *conn
}

// Open connects to ZooKeeper and makes what is missing there. It fails when
// ZooKeeper does not answer within the connect timeout, or holds something else
// under the names. cfg has at least one of its two parts.
func Open(ctx context.Context, cfg Config, log *slog.Logger) (*Client, error) {
	settings := cfg.settings()
	c, err := connect(ctx, settings, log)
	if err != nil {
		return nil, err
	}
	n := &Client{conn: c}
	if cfg.Secrets != nil {
		if n.Secrets, err = openSecrets(ctx, c, *cfg.Secrets, log); err != nil {
			n.Close()
			return nil, err
		}
	}
	if cfg.Tokens != nil {
		if n.Tokens, err = openTokens(ctx, c, *cfg.Tokens, log); err != nil {
			n.Close()
			return nil, err
		}
	}
	return n, nil
}

// settings returns those of the one connection.
func (c *Config) settings() Settings {
	if c.Secrets != nil {
		return c.Secrets.Settings
	}
	return c.Tokens.Settings
}

// Status returns what the connection is like.
func (n *Client) Status() Status { return n.conn.status() }

// Close ends the session. The secrets' ring keeps the last secrets; every token
// record has ended.
func (n *Client) Close() {
	if n.Secrets != nil {
		n.Secrets.close()
	}
	if n.Tokens != nil {
		n.Tokens.close()
	}
	n.conn.close()
}
