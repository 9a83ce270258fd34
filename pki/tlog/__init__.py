"""The append-only log: Merkle tree, checkpoints and their order. Knows no certificate.

Contract: Inside pki: every wing has its floor.
"""
