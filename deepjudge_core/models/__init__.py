"""What is asked of a model, whatever framework it comes from."""
