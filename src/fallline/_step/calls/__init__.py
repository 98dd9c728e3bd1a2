"""Calls that are checked, and how they run where there is no plan: on NumPy, on arrays of any library, leaf by leaf."""
