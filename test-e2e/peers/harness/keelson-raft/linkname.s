// Empty: with it in the package the compiler accepts functions without a body, which private.go links to raft's own.
