"""Many runs in one command: each skipped, resumed or run in a process of its own, then reported as a whole."""
