"""Transfer learning: what is frozen is computed once."""
