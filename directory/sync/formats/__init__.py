"""Reads one file format into staged rows. Decides nothing.

Contract: A register line goes one way.
Contract: Registers are fetched by their sources alone.
"""
