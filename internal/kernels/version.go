package main

import (
	"cmp"
	"regexp"
	"strconv"
)

var versionPart = regexp.MustCompile(`\d+|\D+`)

// compareVersions compares runs of digits as numbers: 6.18.9 is older than 6.18.15.
func compareVersions(a, b string) int {
	as, bs := versionPart.FindAllString(a, -1), versionPart.FindAllString(b, -1)
	for i := range min(len(as), len(bs)) {
		x, errX := strconv.Atoi(as[i])
		y, errY := strconv.Atoi(bs[i])
		c := cmp.Compare(as[i], bs[i])
		if errX == nil && errY == nil {
			c = cmp.Compare(x, y)
		}
		if c != 0 {
			return c
		}
	}
	return cmp.Compare(len(as), len(bs))
}
