"""Systolic arrays: exact closed forms."""
