"""Facts about the machine and the code that run."""
