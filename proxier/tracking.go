package proxier

import (
	"fmt"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"github.com/nftproxy/nftproxy/proxier/conntrack"
)

// tracking watches connection tracking for people who ask what is wrong with the node: a table that is full, or
// a packet that was dropped, explains connections that fail, and no rule does.
type tracking struct {
	mu   sync.Mutex
	read bool // lost is known
	lost conntrack.Losses
	at   time.Time // when it was read
	// dropped is when packets were last seen to have been dropped.
	dropped time.Time
}

const (
	// insertsAreNormal is how many flows that cannot be inserted are normal between two looks: clients that send
	// two UDP packets at once cause some.
	insertsAreNormal = 10
	// dropsAreNews is how long dropped packets are a problem after the last of them.
	dropsAreNews = 5 * time.Minute
)

// watchTracking looks at connection tracking and notes its problems, or that they are over.
func (p *Proxier) watchTracking() {
	usage, err := conntrack.ReadUsage(p.config.SysctlDir)
	if err == nil && usage.NearlyFull() {
		p.notes.set(aboutTable, fmt.Sprintf("The table of connection tracking is full: %d of %d flows. The kernel "+
			"drops new connections on this node.", usage.Flows, usage.Most),
			"Raise conntrack.maxPerCore in the configuration, and see which clients open so many connections.")
	} else if err == nil {
		p.notes.clear(aboutTable)
	}
	lost, err := conntrack.ReadLosses()
	if err != nil {
		klog.V(2).InfoS("Failed to read losses of connection tracking", "err", err)
		return
	}
	t := &p.tracking
	t.mu.Lock()
	defer t.mu.Unlock()
	now, before := time.Now(), t.lost
	since := now.Sub(t.at).Round(time.Second)
	t.lost, t.at = lost, now
	if !t.read {
		t.read = true
		return
	}
	dropped, inserts := lost.Dropped-before.Dropped, lost.Insert-before.Insert
	switch {
	case dropped-inserts > 0 || inserts > insertsAreNormal:
		t.dropped = now
		p.notes.set(aboutDrops, fmt.Sprintf("Connection tracking dropped the first packets of %d connections "+
			"within %v, %d of them because no source port was free.", dropped, since, inserts),
			"If the table is not full, clients behind one address make too many connections to one endpoint: "+
				"externalTrafficPolicy Local or more endpoints help.")
	case now.Sub(t.dropped) > dropsAreNews:
		p.notes.clear(aboutDrops)
	}
}
