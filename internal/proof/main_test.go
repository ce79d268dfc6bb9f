package proof

import (
	"flag"
	"testing"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// all visits all classes, not only a sample of them.
var all = flag.Bool("all", false, "visit all classes, not only a sample of them")

// sample bounds the visits without all.
var sample = flag.Int("sample", 4_000, "how many classes of a case and family to visit without -all")

func TestMain(m *testing.M) { lab.Main(m) }
