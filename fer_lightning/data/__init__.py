"""Readers (one file per dataset), splits, the decoded cache, augmentation's seeds and the DataModule."""
