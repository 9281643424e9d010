"""What is kept in files: inputs, seeds, test cases, and what a model answers to them."""
