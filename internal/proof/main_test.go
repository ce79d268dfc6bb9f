package proof

import (
	"flag"
	"testing"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// all visits all classes, not only a sample of them.
var all = flag.Bool("all", false, "visit all classes, not only a sample of them")

// sample is how many classes of a case and family are visited without -all.
const sample = 10_000

func TestMain(m *testing.M) { lab.Main(m) }
