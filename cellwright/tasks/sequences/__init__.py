"""What `translate` and `caption` share: sources with texts, the net that writes one for a source, and its training."""
