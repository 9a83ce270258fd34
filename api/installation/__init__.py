"""Starts, supervises and describes one installation.

Contract: Inside api: every wing has its floor.
Contract: Trial servers are started by the installation alone.
"""
