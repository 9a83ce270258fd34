"""Builds the files that others copy: exports and the trust list. Nothing in them is decided here."""
