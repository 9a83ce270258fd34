"""On how many examples a property is tried: few at each commit, always other ones; many in the long run."""

import os

# scripts/test-long.sh says so.
_MANY = 5 if "SCEAU_EXAMPLES" in os.environ else 1


def examples(few: int) -> int:
    return few * _MANY
