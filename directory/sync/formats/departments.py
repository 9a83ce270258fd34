"""The department of an address in France, as people ask for it (01, 2A, 974); '' for one abroad.

Registers name departments by INSEE's code, by FINESS's own (9A for 971) or not at all; then the commune
tells, or else the postal code.
"""

import re
from functools import lru_cache

MONACO = "980"
# TRE_G09, which FINESS writes as well: letters for what INSEE numbers with three digits.
OVERSEAS = {"9A": "971", "9B": "972", "9C": "973", "9D": "974", "9E": "975", "9F": "976", "9J": "986"}
_DEPARTMENT = re.compile(r"0[1-9]|[1-8][0-9]|9[0-5]|2[AB]|9[78][0-9]")
_MONACO = frozenset(("99138", "MC", "MCO", "MONACO"))
# INSEE numbers countries from 99101 on; 99000 and 99100 are France.
_COUNTRY = re.compile(r"99(?!000|100)[0-9]{3}")
_ISO_CODE = re.compile(r"[A-Z]{2,3}")
_OF_FRANCE = frozenset(
    ("FR", "FRA", "GP", "GLP", "MQ", "MTQ", "GF", "GUF", "RE", "REU", "YT", "MYT", "PM", "SPM", "BL", "BLM",
     "MF", "MAF", "WF", "WLF", "PF", "PYF", "NC", "NCL", "TF", "ATF")
)  # fmt: skip
_LENGTH = 5  # of INSEE's codes of communes and of postal codes alike


@lru_cache(maxsize=4096)
def department_of(commune: str, postal_code: str, *, told: str = "", country: str = "") -> str:
    """The department of an address; `told` is what the register calls it. '' abroad, and when nothing tells.

    A postal code of Corsica (20…) does not tell 2A from 2B reliably, and gives ''.
    """
    if country in _MONACO or commune in _MONACO:
        return MONACO
    if _is_abroad(country) or _COUNTRY.fullmatch(commune):
        return ""
    return _named(told) or _of_code(commune, postal_code)


def _is_abroad(country: str) -> bool:
    return bool(_COUNTRY.fullmatch(country)) or bool(
        _ISO_CODE.fullmatch(country) and country not in _OF_FRANCE
    )


def _named(told: str) -> str:
    """INSEE's code of a department that a register names: 1 is 01, and 9E is 975."""
    department = OVERSEAS.get(told) or told.lstrip("0").zfill(2)
    return department if _DEPARTMENT.fullmatch(department) else ""


def _of_code(commune: str, postal_code: str) -> str:
    code = commune if len(commune) == _LENGTH else postal_code
    if len(code) != _LENGTH or not code[2:].isdigit() or (code is postal_code and code.startswith("20")):
        return ""
    return _named(code[:3] if code.startswith(("97", "98")) else code[:2])
