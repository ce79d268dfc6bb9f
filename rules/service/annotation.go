package service

// AnnotationPrefix begins the names of the annotations of Services that are ours. Those of no other prefix are
// read, and kept in memory.
const AnnotationPrefix = "nftproxy.io/"
