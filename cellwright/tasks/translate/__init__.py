"""N to M: a text in another language, or in another form."""
