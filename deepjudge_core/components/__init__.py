"""What plugins hand over, and how it is found."""
