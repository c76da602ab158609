"""Problems that make their own data and show how far a cell's memory goes."""
