package service

// AnnotationPrefix begins the names of the annotations of Services that are ours. No others are read, or kept
// in memory.
const AnnotationPrefix = "nftproxy.io/"
