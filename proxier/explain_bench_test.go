package proxier

import (
	"errors"
	"testing"

	"github.com/nftproxy/nftproxy/proxier/explain"
	"github.com/nftproxy/nftproxy/proxier/kernel"
)

// BenchmarkExplain asks about one of 50,000 Services, whose rules are in the kernel: as the daemon does, by
// name and by address, and of the kernel alone.
func BenchmarkExplain(b *testing.B) {
	n := newBusyNode(b, 25_000, 0, kernel.Options{})
	n.sync(b) // one transaction for all would exceed the send buffer of a user namespace
	applyServices(n.Proxier, 50_000)
	n.sync(b)
	e := n.reconciler.builder.Environment()
	for name, target := range map[string]string{"name": "many/s49999", "address": "10.96.195.79:80"} {
		q := explain.Question{Target: target}
		b.Run("daemon/"+name, func(b *testing.B) {
			for b.Loop() {
				wanted, err := explain.Collect(n.reconciler.builder, nil, q)
				if err != nil {
					b.Fatal(err)
				}
				reaches(b, func(k *kernel.Inquiry) (*explain.Report, error) {
					return explain.Explain(wanted, q, k)
				}, n)
			}
		})
		b.Run("kernel/"+name, func(b *testing.B) {
			for b.Loop() {
				reaches(b, func(k *kernel.Inquiry) (*explain.Report, error) {
					return explain.Alone(k, explain.Wanted{Environment: e, Alone: errors.New("not asked")}, q)
				}, n)
			}
		})
	}
}

// reaches fails unless the answer is that the connection reaches one of three endpoints.
func reaches(b *testing.B, answer func(*kernel.Inquiry) (*explain.Report, error), n *node) {
	b.Helper()
	report, err := answer(kernel.NewInquiry(n.conn, n.reconciler.builder.Environment().Config))
	if err != nil || report.ExitCode() != 0 || len(report.Endpoints) != 3 {
		b.Fatalf("error %v, report %+v", err, report)
	}
}
