package fakekernel

import (
	"sync"

	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Kernel is a fake kernel. It is safe for concurrent use.
type Kernel struct {
	// Fail, if not nil, is called before each method with the method's name; if it returns an error, the
	// method does nothing else and returns that error. Fail may take its time and may call Edit. Set it
	// before the first call.
	Fail func(method string) error

	mu           sync.Mutex
	tables       Tables
	generation   uint32 // moves with each transaction
	expected     uint32 // the generation if no other process made one since the last Diff or CheckDrift
	transactions int
}

// New returns a Kernel without tables.
func New() *Kernel { return &Kernel{tables: Tables{}, generation: 1, expected: 1} }

// Tables returns a copy of the tables that the Kernel holds.
func (k *Kernel) Tables() Tables {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.tables.clone()
}

// Transactions returns how many transactions Apply and DeleteStale have committed.
func (k *Kernel) Transactions() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.transactions
}

// Edit changes the tables as another process would, in a transaction of its own. A change that does nothing
// stands for a change of a table that is not nftproxy's.
func (k *Kernel) Edit(change func(Tables)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change(k.tables)
	k.generation++
}

func (k *Kernel) fail(method string) error {
	if k.Fail == nil {
		return nil
	}
	return k.Fail(method)
}

// Diff reads the tables of the families and returns the difference to the ruleset that build makes with the
// slots found.
func (k *Kernel) Diff(families []service.Family, build func(rules.Slots) *rules.Ruleset) (
	*rules.Delta, error) {
	if err := k.fail("Diff"); err != nil {
		return nil, err
	}
	k.mu.Lock()
	read := Tables{}
	k.expected = k.generation
	for _, f := range families {
		if t := k.tables[f]; t != nil {
			read[f] = t.clone()
		}
	}
	k.mu.Unlock()
	desired := build(read.Programmed(nil).Slots())
	return rules.Diff(desired, read.Programmed(desired)), nil
}

// Apply commits a Delta in one transaction.
func (k *Kernel) Apply(d *rules.Delta) error {
	if err := k.fail("Apply"); err != nil {
		return err
	}
	if d.Size() == 0 {
		return nil
	}
	return k.commit(func(t Tables) error { return t.apply(d) })
}

// DeleteStale deletes the chains and sets that a Delta left without a user, in one transaction.
func (k *Kernel) DeleteStale(d *rules.Delta) error {
	if err := k.fail("DeleteStale"); err != nil {
		return err
	}
	if len(d.StaleChains)+len(d.StaleSets) == 0 {
		return nil
	}
	return k.commit(func(t Tables) error { return t.deleteStale(d) })
}

// commit changes a copy of the tables, so that a refused change leaves them as they were.
func (k *Kernel) commit(change func(Tables) error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	next := k.tables.clone()
	if err := change(next); err != nil {
		return err
	}
	k.tables = next
	k.generation++
	k.expected++
	k.transactions++
	return nil
}

// CheckDrift reports whether another process changed the tables since the last call of Diff or CheckDrift. It
// compares what kernel.Conn compares: chains, rules, sets and the numbers of elements.
func (k *Kernel) CheckDrift(want *rules.Ruleset) (kernel.Drift, error) {
	if err := k.fail("CheckDrift"); err != nil {
		return kernel.Unknown, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	changed := k.generation != k.expected
	k.expected = k.generation
	switch {
	case !changed:
		return kernel.Unchanged, nil
	case k.tables.drifted(want):
		return kernel.Drifted, nil
	}
	return kernel.Unknown, nil
}
