"""The only code that reaches where CA keys are kept. In production a process behind a Unix socket.

It signs nothing it is handed: it reads what was committed, judges it again, signs it once, and writes it
down.

Contract: Only signing reaches the key stores.
Contract: Inside pki: every wing has its floor.
"""
