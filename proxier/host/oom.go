package host

import (
	"fmt"
	"os"
	"strconv"
)

// SetOOMScoreAdj sets how likely the kernel is to kill this process when memory runs out, from -1000 (never)
// to 1000. Lowering it needs CAP_SYS_RESOURCE.
func SetOOMScoreAdj(adj int) error {
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte(strconv.Itoa(adj)), 0o644); err != nil {
		return fmt.Errorf("set oom_score_adj to %d: %w", adj, err)
	}
	return nil
}
