"""Answers one question from facts: may these two exchange, and with which certificate?"""
