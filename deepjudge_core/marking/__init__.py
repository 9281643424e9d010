"""Keys of watermarks and fingerprints: made from a victim, and embedded in it."""
