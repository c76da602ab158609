"""Speech: recordings to text (N to N, with CTC), or to one label each (N to 1)."""
