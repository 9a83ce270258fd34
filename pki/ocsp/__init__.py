"""Answers about one certificate; `good` only for what is in the record."""
