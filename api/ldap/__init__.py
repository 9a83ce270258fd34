"""Answers what slapd asks about each reader: one protocol, slapd-sock(5). It decides no right of its own."""
