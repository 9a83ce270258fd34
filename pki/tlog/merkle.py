"""The Merkle tree of RFC 9162 section 2.1: hashes, frontier, proofs, and their verification.

Pure: knows nothing of what its leaves say. SHA-256 throughout.
"""

from collections.abc import Sequence
from hashlib import sha256

from directory.base.errors import Kind, Refusal

# The hashes of the perfect subtrees a tree is made of, largest first: all that appending needs to know.
Frontier = tuple[bytes, ...]
EMPTY_ROOT = sha256().digest()


def leaf_hash(data: bytes) -> bytes:
    """The hash of one leaf; the prefix keeps a leaf from passing for a node (second preimages, 2.1.1)."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of two subtrees side by side."""
    return sha256(b"\x01" + left + right).digest()


def append(frontier: Frontier, size: int, leaf: bytes) -> Frontier:
    """The frontier of a tree of `size` leaves with one more: equals merge, as a binary counter carries."""
    subtrees = list(frontier)
    while size & 1:
        leaf = node_hash(subtrees.pop(), leaf)
        size >>= 1
    return (*subtrees, leaf)


def root_of(frontier: Frontier) -> bytes:
    """The root of the tree with this frontier."""
    if not frontier:
        return EMPTY_ROOT
    *others, root = frontier
    for subtree in reversed(others):
        root = node_hash(subtree, root)
    return root


def tree_root(leaves: Sequence[bytes]) -> bytes:
    """The root over these leaf hashes (MTH, 2.1.1)."""
    frontier: Frontier = ()
    for size, leaf in enumerate(leaves):
        frontier = append(frontier, size, leaf)
    return root_of(frontier)


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """What proves that leaf `index` is in the tree of these leaf hashes (PATH, 2.1.3.1), nearest first."""
    if len(leaves) == 1:
        return []
    split = _split(len(leaves))
    if index < split:
        return [*inclusion_proof(leaves[:split], index), tree_root(leaves[split:])]
    return [*inclusion_proof(leaves[split:], index - split), tree_root(leaves[:split])]


def consistency_proof(leaves: Sequence[bytes], size: int) -> list[bytes]:
    """What proves that the tree of the first `size` leaf hashes begins the tree of all (PROOF, 2.1.4.1)."""
    return _subproof(leaves, size, known=True) if 0 < size < len(leaves) else []


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Refuse `proof-fails` unless `proof` leads from leaf hash `leaf` at `index` to `root` (2.1.3.2)."""
    if not 0 <= index < size:
        raise _fails()
    # 2: fn and sn are the places of the leaf and of the last leaf, level by level. 3: r begins as the leaf.
    place, last, node = index, size - 1, leaf
    for sibling in proof:  # 4
        if last == 0:
            raise _fails()
        if place & 1 or place == last:
            node = node_hash(sibling, node)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        place, last = place >> 1, last >> 1
    if last or node != root:  # 5
        raise _fails()


def verify_consistency(
    old_size: int, old_root: bytes, size: int, root: bytes, proof: Sequence[bytes]
) -> None:
    """Refuse `proof-fails` unless `proof` shows that the old tree begins the new one (2.1.4.2)."""
    if old_size in {0, size}:
        if proof or (root if old_size else EMPTY_ROOT) != old_root:
            raise _fails()
        return
    if not 0 < old_size < size or not proof:  # 1
        raise _fails()
    path = list(proof) if old_size & (old_size - 1) else [old_root, *proof]  # 2
    place, last = old_size - 1, size - 1  # 3
    while place & 1:  # 4
        place, last = place >> 1, last >> 1
    old = new = path[0]  # 5
    for sibling in path[1:]:  # 6
        if last == 0:
            raise _fails()
        if place & 1 or place == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        place, last = place >> 1, last >> 1
    if last or old != old_root or new != root:  # 7
        raise _fails()


def _subproof(leaves: Sequence[bytes], size: int, *, known: bool) -> list[bytes]:
    """SUBPROOF of 2.1.4.1; `known` while the verifier holds this subtree's root already."""
    if size == len(leaves):
        return [] if known else [tree_root(leaves)]
    split = _split(len(leaves))
    if size <= split:
        return [*_subproof(leaves[:split], size, known=known), tree_root(leaves[split:])]
    return [*_subproof(leaves[split:], size - split, known=False), tree_root(leaves[:split])]


def _split(size: int) -> int:
    """The largest power of two below `size`."""
    return 1 << (size - 1).bit_length() - 1


def _fails() -> Refusal:
    return Refusal(Kind.UNACCEPTABLE, "proof-fails", "This proof does not lead to that root.")
