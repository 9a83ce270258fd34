"""The making of CAs from one reviewed file: roots, issuing CAs, the certificates roots give one another.

What the file says is what is made: nothing is asked at a prompt, nothing defaults in silence. It may be run
again at any time: what exists and equals the file is kept, what differs is refused. Day-by-day signing is not
here (`pki.signing`), nor is the switch from one generation to the next (`pki.ceremony.rollover`).

Contract: Inside pki: every wing has its floor.
"""
