"""Photos in, a prepared set of raw pixels out."""
