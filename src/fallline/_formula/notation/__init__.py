"""Formulas as people read them, typeset; read from the code that is run, so that they cannot differ from it."""
