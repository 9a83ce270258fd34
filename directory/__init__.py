"""Who practises, and where they can be reached.

Follows the national registers, keeps their history, and knows which mailboxes are visible. Imports neither
`pki` nor `api`; a certificate is no more than bytes here.

Contract: The data flows one way: api reads pki, pki reads directory.
Contract: Only api knows HTTP, commands and the scheduler.
"""
