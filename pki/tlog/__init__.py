"""The append-only log: Merkle tree, checkpoints and their order. Knows no certificate."""
