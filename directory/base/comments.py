"""How long what people write beside an act may be: the reason of a measure, the comment of a revocation.

The log keeps it for ever, and others read it: a reference to the decision, never a copy.
"""

from directory.base.errors import Kind, Refusal

LONGEST_REASON = 1000
LONGEST_COMMENT = 1000
# Of who lets a run of a register through, or a revocation of many, which the line of each certificate names.
LONGEST_SENTENCE = LONGEST_COMMENT // 2


def check_reason(reason: str) -> None:
    """Refuse an act without a reason, or with a book: `reason-missing`, `reason-too-long`."""
    if not reason.strip():
        raise Refusal(Kind.MALFORMED, "reason-missing", "This needs a reason.")
    if len(reason) > LONGEST_REASON:
        text = f"A reason has at most {LONGEST_REASON} characters."
        raise Refusal(Kind.MALFORMED, "reason-too-long", text)


def check_comment(comment: str, longest: int = LONGEST_COMMENT) -> None:
    """Refuse `comment-too-long`."""
    if len(comment) > longest:
        text = f"A comment has at most {longest} characters."
        raise Refusal(Kind.MALFORMED, "comment-too-long", text)
