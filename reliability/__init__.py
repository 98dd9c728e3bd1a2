"""Trials too long for the test suite: python -m reliability (see docs/reliability.md)."""
