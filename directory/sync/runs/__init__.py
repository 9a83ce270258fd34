"""Plans one run, holds it to its bounds, applies it in one transaction.

Contract: A register line goes one way.
Contract: Registers are fetched by their sources alone.
"""
