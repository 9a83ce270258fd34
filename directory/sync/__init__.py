"""National registers in: from a file somebody else made to rows of the record, or to a reason why not.

`sources` fetches, `formats` reads one file, `runs` plans and applies. Publishes nothing.

Contract: A register line goes one way.
"""
