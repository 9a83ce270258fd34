"""Who practises, and where they can be reached.

Follows the national registers, keeps their history, and knows which mailboxes are visible. Imports neither
`pki` nor `api`; a certificate is no more than bytes here.
"""
