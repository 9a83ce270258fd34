"""Builds, checks and stores one CRL per CA and shard."""
