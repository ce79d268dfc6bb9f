// Package interpreter evaluates nftproxy's rules on one packet, as the kernel does: it answers where a
// connection goes, and which rules decide that.
//
// It runs the statements themselves and knows nothing of Services, so its answer is no second opinion: the
// rules can be those that are desired, or those that were read from the kernel. A number that the packet
// alone does not decide, such as a random one, gives every outcome that it can lead to. A statement that the
// package does not know is an error.
//
// The package is pure, as package rules is. The tests of package proxier compare it with what real packets do
// in each golden case.
//
// Start reading at [Run]; statement.go has the effect of each statement.
package interpreter
