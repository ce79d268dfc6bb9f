package proxier

import (
	"errors"
	"fmt"
	"io"

	"github.com/nftproxy/nftproxy/proxier/config"
	"github.com/nftproxy/nftproxy/proxier/host"
	"github.com/nftproxy/nftproxy/proxier/nft"
	"github.com/nftproxy/nftproxy/rules"
)

// Diff writes what the daemon would change in the kernel for the manifests of
// c.Source, as nft commands, and reports whether that is anything.
func Diff(c *config.Config, w io.Writer, report func(error)) (changed bool, err error) {
	conn, err := nft.Dial(nft.Options{Own: c.OwnTables})
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	snapshot, err := conn.Read(rules.Families())
	if err != nil {
		return false, fmt.Errorf("read what is programmed: %w", err)
	}
	addrs, err := host.Host{}.Addrs()
	if err != nil {
		return false, err
	}
	desired, err := desiredOf(c, report, snapshot.Programmed.Slots(), addrs)
	if err != nil {
		return false, err
	}
	programmed, err := snapshot.Compare(desired.Chains)
	if err != nil {
		return false, err
	}
	d := rules.Diff(desired, programmed)
	d.Forget = nil // whether clients have to be forgotten is known only then
	if err := d.WriteText(w); err != nil {
		return false, fmt.Errorf("write difference: %w", err)
	}
	return !d.Empty(), nil
}

// Cleanup removes nftproxy's tables from the kernel and returns those that were
// there. Connections that were translated go on.
func Cleanup() (found []rules.Family, err error) {
	conn, err := nft.Dial(nft.Options{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	return conn.Cleanup(rules.Families())
}
