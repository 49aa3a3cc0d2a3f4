"""Comparing many runs: collecting, grouping, testing and drawing them."""
