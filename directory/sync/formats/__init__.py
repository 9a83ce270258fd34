"""Reads one file format into staged rows. Decides nothing."""
