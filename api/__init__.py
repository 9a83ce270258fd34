"""The outside: the only place where a process starts, HTTP is spoken or a command is read.

Carries what `directory` and `pki` decide; contains no rule of its own.
"""
