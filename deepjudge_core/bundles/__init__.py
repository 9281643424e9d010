"""What lets others check a verdict: commitments made beforehand, and bundles that are verified without any model."""
