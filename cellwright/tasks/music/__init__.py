"""Music: the next step of a piano roll from those before it; tunes from nothing, from their beginning, from a class."""
