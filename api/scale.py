"""How high a bar stands among others, for whoever draws nights: the page's chart and the command's line."""

from collections.abc import Sequence


def drawn_highest(values: Sequence[int]) -> float:
    """The value drawn highest: the greatest, unless it would flatten the others, as a first load does.

    Then it is twice what nine in ten stay below; what lies above is cut. 1 for none.
    """
    known = sorted(value for value in values if value)
    if not known:
        return 1
    return min(known[-1], 2 * known[int(0.9 * (len(known) - 1))])
