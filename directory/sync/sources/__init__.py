"""Where files of registers come from: a network or the drop folder. Nobody else in `sync` fetches any.

Contract: A register line goes one way.
Contract: Registers are fetched by their sources alone.
"""
