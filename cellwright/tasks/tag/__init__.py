"""N to N: a label per word or frame."""
