"""Speed, measured beside the peers in one run, after the numbers agree."""
