"""What must not be published is seen in every spelling; numbers of registers and telephones pass."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from directory import privacy
from directory.identifiers import luhn_key, luhn_ok
from directory.model import Mailbox, MailboxKind, Organisation, Practice, Practitioner
from directory.privacy import Secret, secrets_in, secrets_in_address, secrets_in_number
from tests.factories import rpps

NUMBER, BIRTH, HOME = Secret.SOCIAL_SECURITY_NUMBER, Secret.BIRTH_DATE, Secret.PRIVATE_ADDRESS


def keyed(body: str) -> str:
    """The thirteen characters with their key."""
    counted = body[:5] + {"2A": "19", "2B": "18"}.get(body[5:7], body[5:7]) + body[7:]
    return f"{body}{97 - int(counted) % 97:02d}"


bodies = st.builds(
    "{}{:02d}{:02d}{}{:03d}{:03d}".format,
    st.sampled_from("123478"), st.integers(0, 99),
    st.one_of(st.integers(1, 12), st.integers(20, 42), st.integers(50, 99)),
    st.one_of(st.sampled_from(["2A", "2B"]), st.integers(1, 99).map("{:02d}".format)),
    st.integers(1, 999), st.integers(1, 999),
)  # fmt: skip
gaps = st.sampled_from(
    ["", " ", ".", "-", "_", "  ", " - ", "\u00a0", "\u202f", "\u2011", "\u2012", "\u200b"]
)
apart = st.sampled_from(["/", ",", ", ", " / ", "~", "=", "\u00b7"])
WIDE = str.maketrans("0123456789/@.", "".join(chr(ord(each) + 0xFEE0) for each in "0123456789/@."))
ARABIC = str.maketrans("0123456789", "".join(map(chr, range(0x660, 0x66A))))
around = st.sampled_from(
    [("", ""), ("M. ", " absent"), ("NIR:", ";"), ("n", "."), ("(", ")"), ("le ", " 12")]
)


@given(
    body=bodies,
    gap=gaps | apart,
    around=around,
    with_key=st.booleans(),
    lower=st.booleans(),
    wide=st.booleans(),
)
def test_a_social_security_number_is_seen_however_it_is_written(
    body: str, gap: str, around: tuple[str, str], *, with_key: bool, lower: bool, wide: bool
) -> None:
    # A surgery's number, as likely as one in ten of what begins with 4.
    assume(gap or not (with_key and body[0] == "4" and luhn_ok(body[1:12])))
    number = keyed(body) if with_key else body
    parts = [number[0], number[1:3], number[3:5], number[5:7], number[7:10], number[10:13], number[13:]]
    written = around[0] + gap.join(filter(None, parts)) + around[1]
    written = written.translate(WIDE) if wide else written
    assert NUMBER in secrets_in(written.lower() if lower else written)


@given(
    body=bodies,
    sizes=st.lists(st.integers(1, 5), min_size=15),
    gap=st.sampled_from([" ", ".", "-", "\u2800"]),
)
def test_it_is_seen_with_its_key_wherever_it_is_parted(body: str, sizes: list[int], gap: str) -> None:
    rest, parts = keyed(body), []
    assume(not (body[0] == "4" and luhn_ok(body[1:12])))
    while rest:
        size = sizes.pop()
        parts.append(rest[:size])
        rest = rest[size:]
    written = gap.join(parts)
    assert NUMBER in secrets_in(written)
    assert NUMBER in secrets_in(written.translate(ARABIC))


@given(body=bodies, gap=st.sampled_from([*"/._-=~+!#$%&'*?^`{|}"]), with_key=st.booleans())
def test_it_is_seen_in_an_address_whatever_an_address_may_part_it_by(
    body: str, gap: str, *, with_key: bool
) -> None:
    number = keyed(body) if with_key else body
    parts = [number[0], number[1:3], number[3:5], number[5:7], number[7:10], number[10:13], number[13:]]
    address = f"d{gap}{gap.join(filter(None, parts))}@medecin.example".lower()
    assert NUMBER in secrets_in_address(address)
    box = Mailbox(address, MailboxKind.PERSON, rpps(1), "", "", "", "", listed=True)
    assert not privacy.is_shown(privacy.of_mailbox(box))


@given(bodies, st.integers(1, 96))
def test_fifteen_digits_with_another_key_are_another_number(body: str, off: int) -> None:
    key = (int(keyed(body)[13:]) - 1 + off) % 97 + 1
    assert NUMBER not in secrets_in(f"{body}{key:02d}")


@given(st.integers(0, 99_999), st.sampled_from(["", "8"]))
def test_a_number_of_the_national_register_passes(number: int, digit: str) -> None:
    written = digit + rpps(number)[1:]
    assert not secrets_in(f"DR MARTIN {written}")
    assert not secrets_in_number(written)


@given(st.from_regex(r"[0-9]{9}", fullmatch=True), st.from_regex(r"[0-9]{8}", fullmatch=True))
def test_finess_adeli_siren_and_phones_pass(nine: str, eight: str) -> None:
    phone = f"0{nine}"
    pairs = " ".join(phone[at : at + 2] for at in range(0, 10, 2))
    for text in (nine, phone, pairs, f"+33{nine}", pairs.replace(" ", "."), f"{nine} {nine}", f"Tel {pairs}"):
        assert NUMBER not in secrets_in(text), text
    siren = nine[:8] + luhn_key(nine[:8])
    siret = siren + eight[:4] + luhn_key(siren + eight[:4])
    spaced = f"{siret[:3]} {siret[3:6]} {siret[6:9]} {siret[9:]}"
    for text in (siret, spaced, f"{siren} {siret[9:]}", f"NTRFR-{siret}", f"3{nine}/1234"):
        assert NUMBER not in secrets_in(text), text
        assert not secrets_in_number(text), text


@pytest.mark.parametrize(
    "text",
    ["12/05/1985", "né le 12.05.1985", "DUPONT 12-05-1985", "1985-05-12", "nee le 3 mai 1985", "Née LE 1 mai",
     "(1/2/1950)", "12 05 1985", "12/05/1985".translate(WIDE), "12 - 05 - 1985", "12/ 05/1985",
     "12 /05 / 1985", "12_05_1985", "12,05,1985", "12  05  1985", "1985.5.12", "12\u201105\u20111985",
     "12\u200b/05/19\u00ad85",
     "12051985", "DUPONT 19850512", "N12051985", "12051985".translate(WIDE), "DUPONT 3 mai 1985",
     "1er ao\u00fbt 1985", "1ER AOUT 1985", "3 f\u00e9vr. 1985", "3 fe\u0301vrier 1985", "03-mai-1985",
     "n\u00e9(e) le 3 mai", "n\u00e9.e le 3 mai", "ne\u0301 le 3 mai", "NE\u0301E LE 3 MAI",
     "n\u00e9  le 3 mai"],
)  # fmt: skip
def test_a_birth_date_is_seen(text: str) -> None:
    assert secrets_in(text) == {BIRTH}


@pytest.mark.parametrize(
    "text",
    ["31/02/1985", "12/13/1985", "RUE DU 8 MAI 1945", "12/14/16 RUE DES LILAS", "LOI DU 01/07/1901", "24/7",
     "0985-05-12", "10.12.14", "75001 PARIS", "BP 12 1985", "CLINIQUE 2000", "ESPACE 3.0", "1-3 RUE", "7/7",
     "AVENUE CHARLES DE GAULLE", "ASSOCIATION LOI 1901", "CABINET DU 8 MAI 1945", "PHARMACIE 8 MAI 1945",
     "CLINIQUE DU 4 SEPTEMBRE", "CENTRE DU 1ER MAI 1936", "12 MARSEILLE 1985", "3 maisons 1985", "2 mai",
     "CLINIQUE DE LA MARNE LE 12", "31 fe\u0301vrier 1985", "12345678", "20240101", "01 23456789",
     "12 05198512", "12051985 00019", "1/2/3", "EHPAD 1, 2 et 3", "12,5 / 1985"],
)  # fmt: skip
def test_what_is_no_full_date_passes(text: str) -> None:
    assert not secrets_in(text)


def test_a_street_may_be_called_by_a_day() -> None:
    assert not secrets_in("12 RUE DU 19/03/1962", is_street=True)
    assert secrets_in("12 RUE DU LAC 19/03/1962", is_street=True) == {BIRTH}
    assert secrets_in("CABINET DU 19/03/1962") == {BIRTH}


@pytest.mark.parametrize(
    "street", ["12 RUE DU 4 SEPTEMBRE", "12 R 8 MAI 1945", "PL 30 AOUT 1944", "1 RUE DU 8 MAI 1945"]
)
def test_a_street_called_by_a_day_in_words_is_a_street(street: str) -> None:
    assert not secrets_in(street, is_street=True)


@pytest.mark.parametrize(
    ("text", "is_street", "seen"),
    [
        ("CHEZ MME DURAND", True, True),
        ("12 RUE DES LILAS (DOMICILE PERSONNEL)", True, True),
        ("A DOMICILE", True, True),
        ("adresse privée : 3 rue du Lac", True, True),
        ("LIEU DIT CHEZ RAGON", True, False),
        ("2 CHEZ RAGON", True, False),
        ("CHEZ DUPONT", True, True),
        ("CHEZ LEBRUN", True, True),
        ("Chez  Mme Durand", True, True),
        ("C/O MME DUPONT", True, True),
        ("c / o Dupont", True, True),
        ("\u2105 DUPONT", True, True),
        ("3 RUE DU LAC C/O MME DUPONT", True, True),
        ("C/O CLINIQUE DES LILAS", True, False),
        ("domicile prive\u0301", True, True),
        ("CHEZ DUPONT", False, False),
        ("camille@mail.gmail.com", False, True),
        ("camille\uff20orange.fr", False, True),
        ("camille@notgmail.com", False, False),
        ("HOSPITALISATION A DOMICILE", False, False),
        ("RUE DU DOMICILE", True, False),
        ("joindre Camille@Orange.fr le soir", False, True),
        ("accueil@hopital.example", False, False),
        ("SERVICE @HOME", False, False),
    ],
)
def test_what_says_itself_private_is_seen(text: str, *, is_street: bool, seen: bool) -> None:
    assert bool(secrets_in(text, is_street=is_street)) is seen


@pytest.mark.parametrize(
    ("address", "seen"),
    [
        ("jean.dupont.12051985@medecin.example", {BIRTH}),
        ("jdupont19850512@medecin.example", {BIRTH}),
        ("jean_12_05_1985@medecin.example", {BIRTH}),
        ("jean.12-05-1985@medecin.example", {BIRTH}),
        (f"{keyed('1850578006084')}@medecin.example", {NUMBER}),
        (f"x.{keyed('185052A006084').lower()}@medecin.example", {NUMBER}),
        ("jean.dupont@gmail.com", {HOME}),
        ("a@mail.gmail.com", {HOME}),
        ("a@sub.gmail.com", {HOME}),
        ("a@notgmail.com", set()),
        ("1~850578006084@medecin.example", {NUMBER}),
        ("dupont=12=05=1985@medecin.example", {BIRTH}),
        ("1985.5.12@medecin.example", {BIRTH}),
        ("dupont.3.mai.1985@medecin.example", {BIRTH}),
        ("a@1850578006084.example", {NUMBER}),
        ("a@b-1850578006084.medecin.example", {NUMBER}),
        ("a@h750990012.medecin.example", set()),
        ("jean.dupont@gmail.com.medecin.example", set()),
        ("jean.dupont75@medecin.example", set()),
        ("cabinet.0123456789@medecin.example", set()),
        ("750990012@hopital.example", set()),
        ("810099000019@medecin.example", set()),
        ("urgences2024.01@hopital.example", set()),
        ("lot.20240101@hopital.example", set()),
        ("36252187900034@siret.example", set()),
    ],
)
def test_an_address_is_looked_at_whole(address: str, seen: set[Secret]) -> None:
    assert secrets_in_address(address) == seen


BODY = keyed("2850578006084")


def person(**given: object) -> Practitioner:
    known = {"national_id": rpps(1), "title": "DR", "family_name": "MARTIN", "given_name": "Camille"}
    return Practitioner(**{**known, **given})  # type: ignore[arg-type]


def test_a_field_is_held_back_and_not_the_person() -> None:
    practice = Practice("10", "C", structure_name="CABINET", street="CHEZ MME MARTIN", town="PARIS")
    found = privacy.of_person(
        person(
            family_name=f"MARTIN {BODY}", given_name="Camille 12/05/1985", practices=(practice,),
            other_names=(("DURAND", BODY),),
        )
    )  # fmt: skip
    assert (found.family_name, found.given_name, found.other_names) == (rpps(1), "", ())
    assert (found.practices[0].street, found.practices[0].structure_name) == ("", "CABINET")
    assert privacy.is_shown(found)
    assert found.withheld == (
        ("family_name", NUMBER.value), ("given_name", BIRTH.value), ("other_names", NUMBER.value),
        ("practices.street", HOME.value),
    )  # fmt: skip


def test_a_place_keeps_its_number_for_a_name() -> None:
    place = privacy.of_place(Organisation("750990012", f"CABINET {BODY}", long_name="ne le 3 mai 1950"))
    assert (place.name, place.long_name) == ("750990012", "")


@pytest.mark.parametrize(
    "written",
    ["1/85/05/78/006/084", "1850578006084".translate(WIDE), "12051985", "3 mai 1985", "n\u00e9(e) le 3 mai",
     "ne\u0301 le 3", "1\u200b85\u200b05\u200b78\u200b006\u200b084", "a@mail.gmail.com"],
)  # fmt: skip
def test_the_quick_look_stops_at_every_spelling(written: str) -> None:
    assert privacy.of_person(person(given_name=written)).given_name == ""
    assert privacy.of_place(Organisation("750990012", f"CABINET {written}")).name == "750990012"
    practice = Practice("10", "C", structure_name=written)
    assert privacy.of_person(person(practices=(practice,))).practices[0].structure_name == ""


def test_the_quick_look_stops_at_a_street_where_somebody_lives() -> None:
    for street in ("CHEZ DUPONT", "c/o Mme Dupont", "\u2105 DUPONT", "domicile prive\u0301"):
        assert privacy.of_person(person(practices=(Practice("10", "C", street=street),))).withheld, street


def test_what_has_nothing_to_hide_is_the_same_object() -> None:
    clean = person(practices=(Practice("10", "C", structure_id="750990012", street="12 RUE DU LAC"),))
    assert privacy.of_person(clean) is clean
    place = Organisation("750990012", "CHU", street="1 RUE DU 8 MAI", postal_line="75001 PARIS")
    assert privacy.of_place(place) is place
    box = Mailbox("a.b@one.example", MailboxKind.ORGANISATION, None, "1", "750990012", "CHU", "", listed=True)
    assert privacy.of_mailbox(box) is box


@pytest.mark.parametrize(
    "mailbox",
    [
        Mailbox("a@1850578006084.example", MailboxKind.PERSON, rpps(1), "", "", "", "", listed=True),
        Mailbox("a@mail.orange.fr", MailboxKind.PERSON, rpps(1), "", "", "", "", listed=True),
        Mailbox("3.mai.1985@one.example", MailboxKind.PERSON, rpps(1), "", "", "", "", listed=True),
        Mailbox("d=12=05=1985@one.example", MailboxKind.PERSON, rpps(1), "", "", "", "", listed=True),
        Mailbox(f"{BODY}@one.example", MailboxKind.PERSON, rpps(1), "", "", "", "", listed=True),
        Mailbox("a@one.example", MailboxKind.ORGANISATION, None, "9", BODY, "X", "", listed=True),
        Mailbox("a@orange.fr", MailboxKind.PERSON, rpps(1), "", "", "", "", listed=True),
    ],
)
def test_a_mailbox_known_by_what_is_held_back_is_not_shown(mailbox: Mailbox) -> None:
    assert not privacy.is_shown(privacy.of_mailbox(mailbox))


def test_a_person_whose_number_is_one_of_social_security_is_not_shown() -> None:
    assert not privacy.is_shown(privacy.of_person(person(national_id=f"3750990012/{BODY}")))


def test_a_subject_may_name_its_own_mailbox_and_nothing_else_of_the_kind() -> None:
    address = "appli.12051985+x@one.example"
    own = f"C=FR,O=CHU,organizationIdentifier=FI:FR-750990012,CN={address.replace('+', chr(92) + '+')}"
    assert privacy.secrets_in_subject(own, address) == set()
    assert privacy.secrets_in_subject(f"{own} {BODY}", address) == {NUMBER}
    escaped = f"CN=1{chr(92)} 85 05 78 006 084"
    assert privacy.secrets_in_subject(escaped, None) == {NUMBER}
    assert privacy.secrets_in_subject(own.replace("one.example", "free.fr"), address) == {HOME, BIRTH}


@given(st.integers(0, 99_999), st.integers(1, 999))
def test_the_number_of_a_surgery_passes_whatever_its_last_digits_say(number: int, rank: int) -> None:
    surgery = f"4{rpps(number)[1:]}{rank:03d}"
    assert not secrets_in_number(surgery)
    assert not secrets_in_number(surgery[1:])


def test_a_number_of_social_security_that_begins_as_a_surgery_s_is_seen() -> None:
    assert secrets_in_number(keyed("4850578006084")) == {NUMBER}
