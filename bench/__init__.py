"""`make bench`: what the gateway adds, beside nginx and beside no proxy in the same run. See docs/performance.md."""
