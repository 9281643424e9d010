"""Many suspects against many suites: each pair is asked once, wherever, and its answers are kept to be judged."""
