"""A language model: symbol by symbol, from a text."""
