"""The Merkle tree against the recursive definition of RFC 9162, and its proofs against forgers."""

from collections.abc import Sequence
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from directory.base.errors import Refusal
from pki.tlog.merkle import (
    EMPTY_ROOT,
    append,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_of,
    tree_root,
    verify_consistency,
    verify_inclusion,
)

LARGEST = 200
DATA = [f"line {number}".encode() for number in range(LARGEST)]
LEAVES = [leaf_hash(data) for data in DATA]
sizes = st.integers(1, LARGEST)


def mth(data: Sequence[bytes]) -> bytes:
    """RFC 9162 2.1.1, word for word."""
    if not data:
        return sha256(b"").digest()
    if len(data) == 1:
        return sha256(b"\x00" + data[0]).digest()
    k = 1
    while k * 2 < len(data):
        k *= 2
    return sha256(b"\x01" + mth(data[:k]) + mth(data[k:])).digest()


def test_the_frontier_gives_the_root_of_the_definition_at_every_size() -> None:
    frontier: tuple[bytes, ...] = ()
    assert root_of(frontier) == EMPTY_ROOT == mth([])
    for size, leaf in enumerate(LEAVES):
        frontier = append(frontier, size, leaf)
        assert root_of(frontier) == mth(DATA[: size + 1])
        assert len(frontier) == (size + 1).bit_count()


def test_published_roots_of_certificate_transparency_are_reached() -> None:
    # The eight leaves and roots that the CT implementations test themselves with.
    inputs = [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    ]
    leaves = [leaf_hash(bytes.fromhex(given)) for given in inputs]
    assert tree_root(leaves[:1]).hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert tree_root(leaves).hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


@given(st.data(), sizes)
def test_every_line_is_proved_to_be_in_the_log(data: st.DataObject, size: int) -> None:
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(LEAVES[:size], index)
    verify_inclusion(LEAVES[index], index, size, proof, mth(DATA[:size]))


@given(st.data(), sizes)
def test_no_other_line_place_size_or_path_passes_an_inclusion_proof(data: st.DataObject, size: int) -> None:
    index = data.draw(st.integers(0, size - 1))
    root, proof = mth(DATA[:size]), inclusion_proof(LEAVES[:size], index)
    forged = [
        (leaf_hash(b"another"), index, size, proof),
        (LEAVES[index], index, size, [*proof, b"x" * 32]),
        (LEAVES[index], size, size, proof),
        (LEAVES[index], -1, size, proof),
        *((LEAVES[index], other, size, proof) for other in range(size) if other != index),
        *((LEAVES[index], index, size, proof[:cut]) for cut in range(len(proof))),
        *(
            (LEAVES[index], index, size, [*proof[:place], b"x" * 32, *proof[place + 1 :]])
            for place in range(len(proof))
        ),
    ]
    for leaf, place, length, path in forged:
        with pytest.raises(Refusal, match="does not lead"):
            verify_inclusion(leaf, place, length, path, root)


@given(st.data(), sizes)
def test_an_old_head_is_proved_to_begin_a_newer_one(data: st.DataObject, size: int) -> None:
    old = data.draw(st.integers(0, size))
    proof = consistency_proof(LEAVES[:size], old)
    verify_consistency(old, mth(DATA[:old]), size, mth(DATA[:size]), proof)


@given(st.data(), sizes.filter(lambda size: size > 1))
def test_no_other_history_passes_a_consistency_proof(data: st.DataObject, size: int) -> None:
    old = data.draw(st.integers(1, size - 1))
    changed = data.draw(st.integers(0, old - 1))
    rewritten = [*DATA[:changed], b"rewritten", *DATA[changed + 1 : size]]
    leaves = [leaf_hash(line) for line in rewritten]
    for proof in (consistency_proof(leaves, old), consistency_proof(LEAVES[:size], old), []):
        with pytest.raises(Refusal, match="does not lead"):
            verify_consistency(old, mth(DATA[:old]), size, mth(rewritten), proof)


@given(sizes, st.lists(st.binary(min_size=32, max_size=32), max_size=9), st.integers(-1, LARGEST + 1))
def test_noise_never_proves_anything(size: int, proof: list[bytes], other: int) -> None:
    with pytest.raises(Refusal):
        verify_inclusion(leaf_hash(b"another"), other, size, proof, mth(DATA[:size]))
    if other != size:
        with pytest.raises(Refusal):
            verify_consistency(other, b"y" * 32, size, mth(DATA[:size]), proof)
