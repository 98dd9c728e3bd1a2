"""Who races: an optimiser by its name, what is tuned of it, and over which rates."""
