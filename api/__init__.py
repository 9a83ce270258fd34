"""The outside: the only place where a process starts, HTTP is spoken or a command is read.

Carries what `directory` and `pki` decide; contains no rule of its own.

Contract: Only api knows HTTP, commands and the scheduler.
Contract: The data flows one way: api reads pki, pki reads directory.
"""
