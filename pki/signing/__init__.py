"""The only code that touches a CA key. In production a process of its own, behind a Unix socket.

It signs nothing it is handed: it reads what was committed, judges it again, signs it once, and writes it
down.
"""
