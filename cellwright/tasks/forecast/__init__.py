"""N to M: the next values of series, with intervals."""
