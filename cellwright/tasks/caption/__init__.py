"""1 to N: a sentence about an image."""
