"""National registers in: from a file somebody else made to rows of the record, or to a reason why not.

Reads files, writes the record; fetches nothing over a network and publishes nothing.
"""
