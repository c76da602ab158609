"""What `classify` and `tag` share: data with labels, the net over them, and its training."""
