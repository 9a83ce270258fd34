"""Who held which power, from the anchors and the log alone: what the signer keeps beside its keys.

`anchors`, `needs` and `state` are pure. `followed` reads the log for them, `change` queues a line of it.
What is signed, and whether the signature holds, is for `acts`.

Contract: Pure code knows no SQL, no network, no framework.
Contract: Inside pki: every wing has its floor.
"""
