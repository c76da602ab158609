"""How records are read, kept and put in order; for every task."""
