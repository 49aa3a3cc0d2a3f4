"""Readers (one file per dataset), splits, the cache of decoded images, seeded augmentation and the DataModule."""
