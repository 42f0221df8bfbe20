"""Snapshots: what is right is read to its end, and every forgery is refused at its chunk."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus import codec
from consensus.errors import ComityError, DecodeError, ProofError, VerificationError
from consensus.hashing import ZERO
from consensus.hotstuff import wire
from consensus.hotstuff.types import CommitCert
from consensus.ledger import stored
from consensus.ledger.attached import cut_attached, split_attached
from consensus.ledger.layout import Paths
from consensus.ledger.stored import check_row
from consensus.snapshot import (
    MANIFEST_BYTES_MAX,
    Counted,
    Manifest,
    Piece,
    Reader,
    check_all,
    decode_manifest,
    frame,
    verify_manifest,
)
from consensus.state import snapshot as pieces
from consensus.state.snapshot import (
    NODE_BITS_MAX,
    PIECE_BYTES_MAX,
    Chunk,
    Due,
    Split,
    check_chunk,
    check_split,
    decode_piece,
    encode_chunk,
    encode_split,
    may_split,
    place_of,
    row_bits,
)
from consensus.state.state import Row
from consensus.state.subtree import (
    bounds,
    check_entries,
    children_of,
    parent_hash,
    root_of_row,
    subtree_hash,
)
from consensus.state.tree import PAGE_ENTRIES_MAX
from tests.consensus.state import model
from tests.snapshots import certify, crowded_state, entries_in, join, town_state

TOWN = town_state()
BITS = 4
MANIFEST = TOWN.manifest(BITS)
PIECES = TOWN.pieces(BITS)
FILE = join(MANIFEST, PIECES)
PATHS = Paths(TOWN.chain)


def read(data: bytes, chain: bytes = TOWN.chain) -> Counted:
    return check_all(Reader(io.BytesIO(data).read, chain))


def index_of(number: int) -> int:
    """The chunk that the ``number``-th piece is of."""
    return pieces.name_in(PIECES[number]) - (1 << BITS)


def with_piece(number: int, data: bytes) -> bytes:
    return join(MANIFEST, [*PIECES[:number], data, *PIECES[number + 1 :]])


def changed(
    number: int, change: Callable[[bytes, list[bytes | None]], tuple[bytes, list]]
) -> bytes:
    """The file with a chunk of which entries and rows are changed."""
    chunk = decode_piece(PIECES[number])
    assert isinstance(chunk, Chunk)
    entries, values = change(chunk.entries, list(chunk.values))
    return with_piece(number, encode_chunk(Chunk(chunk.name, entries, values)))


# --- what is right ------------------------------------------------------------------------------


def test_a_whole_snapshot_is_read_to_its_end() -> None:
    assert read(FILE) == Counted(len(TOWN.rows), 0)
    assert len(PIECES) > 10


@pytest.mark.parametrize("bits", [0, 2, 4])
def test_the_depth_of_the_cut_changes_nothing_of_what_is_proved(bits: int) -> None:
    assert read(TOWN.file(bits)) == Counted(len(TOWN.rows), 0)


def test_the_row_leads_to_the_root_that_the_plain_model_computes() -> None:
    entries = {kh: (row.vh, row.changed_height) for kh, row in TOWN.rows.items()}
    expected = model.state_root(TOWN.depth, entries)
    assert root_of_row(TOWN.depth, len(entries), MANIFEST.row) == expected
    assert TOWN.statement.state_root == expected


@pytest.mark.parametrize("name", [1, 0b1_10, 0b1_1010, 0b1_101010_11, 0b1_10101011_1100])
def test_a_subtree_hashes_to_what_the_plain_model_computes(name: int) -> None:
    state = crowded_state()
    low, high = bounds(name)
    below = {k: r for k, r in state.rows.items() if low <= k and (high is None or k < high)}
    entries = {kh: (row.vh, row.changed_height) for kh, row in below.items()}
    assert below
    expected = model.state_node(state.depth, name.bit_length() - 1, entries)
    assert subtree_hash(state.depth, name, state.chunk(name).entries) == expected
    children = children_of(state.depth, name, state.chunk(name).entries)
    if len(below) > 16 or name.bit_length() - 1 < state.depth:
        assert parent_hash(state.depth, name, len(below), children) == expected


def test_a_copy_for_an_auditor_holds_some_chunks_and_may_leave_rows_out() -> None:
    parts = [index_of(number) for number in (0, 3)]
    copy = replace(MANIFEST, parts=tuple(parts))
    first = decode_piece(PIECES[0])
    assert isinstance(first, Chunk)
    hidden = encode_chunk(first._replace(values=[None] * len(first.values)))
    found = read(join(copy, [hidden, PIECES[3]]))
    assert found.left_out == len(first.values)
    assert found.entries == entries_in([PIECES[0], PIECES[3]])


def test_the_cut_aims_at_chunks_of_half_a_megabyte() -> None:
    assert row_bits(0, 16) == 0
    assert row_bits(2**20, 16) == 2
    assert row_bits(400 * 2**20, 20) == 10
    assert row_bits(2**40, 24) == 16
    assert row_bits(2**40, 4) == 4


# --- crowded prefixes ---------------------------------------------------------------------------


def split_file() -> tuple[Manifest, list[bytes], bytes]:
    """A crowded state cut at depth 2, in which the crowded chunk is split down to its pages."""
    state = crowded_state()
    manifest = state.manifest(2)
    found: list[bytes] = []

    def walk(name: int) -> None:
        chunk = state.chunk(name)
        if not chunk.entries:
            return
        bits = name.bit_length() - 1
        if len(chunk.values) > 16 or (chunk.entries[:2] == b"\xab\xcd" and bits < state.depth):
            count = len(chunk.values) if bits >= state.depth else 0
            children = children_of(state.depth, name, chunk.entries)
            found.append(encode_split(Split(name, count, children)))
            for child in range(4):
                walk(name << 2 | child)
        else:
            found.append(encode_chunk(chunk))

    for index in range(4):
        walk(1 << 2 | index)
    return manifest, found, state.chain


def test_a_crowded_prefix_is_split_and_each_part_is_checked() -> None:
    manifest, found, chain = split_file()
    assert sum(map(pieces.is_split, found)) > 8
    assert read(join(manifest, found), chain).entries == len(crowded_state().rows)


def test_a_forged_part_of_a_split_is_named_by_its_place_below_the_chunk() -> None:
    manifest, found, chain = split_file()
    at = max(n for n, each in enumerate(found) if not pieces.is_split(each))
    crowded = [n for n, each in enumerate(found) if pieces.name_in(each).bit_length() > 10]
    at = crowded[-1]
    forged = bytearray(found[at])
    forged[-1] ^= 1
    with pytest.raises(ProofError, match=r"chunk 2 \([01]+ below it\): .*row of key abcd"):
        read(join(manifest, [*found[:at], bytes(forged), *found[at + 1 :]]), chain)


def test_a_split_with_another_hash_or_count_is_refused() -> None:
    manifest, found, chain = split_file()
    at = next(n for n, each in enumerate(found) if pieces.is_split(each))
    split = decode_piece(found[at])
    assert isinstance(split, Split)
    for forged in (
        split._replace(children=split.children[32:] + split.children[:32]),
        split._replace(entry_count=41),
    ):
        with pytest.raises(ProofError, match="chunk 2: "):
            read(join(manifest, [*found[:at], encode_split(forged), *found[at + 1 :]]), chain)


def test_a_page_is_never_split_and_a_branch_binds_its_count() -> None:
    hash_ = subtree_hash(4, 0b1_0101, TOWN.chunk(0b1_0101).entries)
    with pytest.raises(ProofError, match="no nodes below"):
        check_split(4, Split(0b1_0101, 16, bytes(128)), Due(0b1_0101, hash_))
    state = crowded_state()
    name = 0b1_10101011
    chunk = state.chunk(name)
    due = Due(name, subtree_hash(4, name, chunk.entries))
    children = children_of(4, name, chunk.entries)
    assert check_split(4, Split(name, 40, children), due)
    with pytest.raises(ProofError, match="do not lead"):
        check_split(4, Split(name, 39, children), due)


# --- forged chunks ------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(0, len(PIECES), 3))
def test_a_missing_chunk_is_refused_at_its_place(number: int) -> None:
    with pytest.raises(ProofError, match=rf"chunk {index_of(number)}: it is missing"):
        read(join(MANIFEST, [*PIECES[:number], *PIECES[number + 1 :]]))


def test_a_chunk_that_comes_twice_is_refused_where_another_was_due() -> None:
    with pytest.raises(ProofError, match=rf"chunk {index_of(1)}: out of place"):
        read(join(MANIFEST, [PIECES[0], *PIECES]))


def test_two_chunks_that_changed_places_are_refused_at_the_first() -> None:
    swapped = [PIECES[0], PIECES[2], PIECES[1], *PIECES[3:]]
    with pytest.raises(ProofError, match=rf"chunk {index_of(1)}: it is missing"):
        read(join(MANIFEST, swapped))


def test_a_chunk_under_another_chunks_name_is_refused() -> None:
    chunk = decode_piece(PIECES[2])
    assert isinstance(chunk, Chunk)
    renamed = encode_chunk(chunk._replace(name=pieces.name_in(PIECES[1])))
    with pytest.raises(ProofError, match=rf"chunk {index_of(1)}: an entry lies outside the prefix"):
        read(with_piece(1, renamed))


def test_something_after_the_last_chunk_is_refused() -> None:
    with pytest.raises(ProofError, match=f"left over after the last chunk, at offset {len(FILE)}"):
        read(FILE + b"\x00")


def test_a_chunk_where_the_row_says_that_nothing_is_there_is_refused() -> None:
    zero = [
        index for index in range(1 << BITS) if MANIFEST.row[32 * index : 32 * index + 32] == ZERO
    ]
    rows = {k: r for k, r in TOWN.rows.items() if k[0] >> 4 != 3}
    state = certify(TOWN.genesis, rows)
    assert not zero
    with pytest.raises(ProofError, match=r"chunk 4: out of place; chunk 3 came"):
        read(join(state.manifest(BITS), PIECES))


@pytest.mark.parametrize("at", [1, 40, 200, len(FILE) // 2, len(FILE) - 1])
def test_a_truncated_file_says_at_which_offset_it_ends(at: int) -> None:
    with pytest.raises(ComityError, match=r"offset \d+|is missing"):
        read(FILE[:at])


@given(st.data())
def test_no_byte_of_a_chunk_can_be_changed(data: st.DataObject) -> None:
    number = data.draw(st.integers(0, len(PIECES) - 1))
    at = data.draw(st.integers(0, len(PIECES[number]) - 1))
    flip = data.draw(st.integers(1, 255))
    forged = bytearray(PIECES[number])
    forged[at] ^= flip
    with pytest.raises((ProofError, DecodeError)) as caught:
        read(with_piece(number, bytes(forged)))
    assert f"chunk {index_of(number)}" in str(caught.value)


@given(st.data())
def test_no_byte_of_a_manifest_can_be_changed_but_those_that_nobody_vouches_for(
    data: st.DataObject,
) -> None:
    encoded = MANIFEST.encode()
    at = data.draw(st.integers(0, len(encoded) - 1))
    forged = bytearray(encoded)
    forged[at] ^= data.draw(st.integers(1, 255))
    try:
        found = verify_manifest(decode_manifest(bytes(forged)), TOWN.chain)
    except (DecodeError, VerificationError):
        return
    assert replace(found.manifest, numbers=MANIFEST.numbers) == MANIFEST


@given(st.binary(max_size=300))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises((ProofError, DecodeError)):
        read(data)


def test_an_entry_that_is_left_out_or_added_or_repeated_is_refused() -> None:
    number = max(range(len(PIECES)), key=lambda n: len(PIECES[n]))
    where = rf"chunk {index_of(number)}: "
    with pytest.raises(ProofError, match=where + "the entries are not those"):
        read(changed(number, lambda entries, values: (entries[72:], values[1:])))
    with pytest.raises(ProofError, match=where + "the entries do not ascend"):
        read(changed(number, lambda e, v: (e + e[-72:], [*v, v[-1]])))
    extra = bytes([index_of(number) << 4 | 15]) + b"\xff" * 31 + bytes(32) + (5).to_bytes(8)
    with pytest.raises(ProofError, match=where + "the entries are not those"):
        read(changed(number, lambda e, v: (e + extra, [*v, b""])))


def test_rows_and_entries_of_different_count_are_refused() -> None:
    with pytest.raises(DecodeError, match=rf"chunk {index_of(0)}: .*rows for"):
        read(changed(0, lambda entries, values: (entries, [*values, b"\x00"])))


def test_the_rows_of_two_keys_that_changed_places_are_refused_by_key() -> None:
    number = next(n for n in range(len(PIECES)) if entries_in([PIECES[n]]) > 1)
    kh = decode_piece(PIECES[number])[1][:32].hex()
    with pytest.raises(ProofError, match=rf"chunk {index_of(number)}: the row of key {kh}"):
        read(changed(number, lambda e, v: (e, [v[1], v[0], *v[2:]])))


def test_a_row_that_is_left_out_is_refused_in_a_whole_snapshot() -> None:
    with pytest.raises(ProofError, match=rf"chunk {index_of(4)}: a row is left out"):
        read(changed(4, lambda entries, values: (entries, [None, *values[1:]])))


def test_the_rows_of_another_network_are_refused() -> None:
    other = certify(replace(TOWN.genesis, network="other"), TOWN.rows)
    with pytest.raises(ProofError, match="of another network"):
        read(other.file(), TOWN.chain)
    with pytest.raises(ProofError, match="the row of key"):  # drafts are of a chain
        read(other.file(), other.chain)


def test_an_entry_that_changed_later_than_the_snapshot_is_refused() -> None:
    rows = {**TOWN.rows, b"\x44" * 32: Row(bytes(32), 13, b"")}
    state = certify(TOWN.genesis, rows)
    with pytest.raises(ProofError, match="chunk 4: an entry changed after the height"):
        read(state.file())


def test_a_count_that_the_entries_do_not_have_is_refused() -> None:
    lying = replace(MANIFEST, key_count=len(TOWN.rows) + 1)
    with pytest.raises(ProofError, match="state root"):
        read(join(lying, PIECES))


# --- sizes, before anything is taken in ---------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (b"\x5b" + b"\x7f" + b"\xff" * 7, "at most"),
        (b"\x5a\xff\xff\xff\xff", "at most"),
        (b"\x5a\x02\x00\x00\x01", "at most"),
        (b"\x58\x05", "not the head"),
        (b"\x5a\x00\x00\x00\x05", "not the head"),
        (b"\x5f", "not the head"),
        (b"\x9a\xff\xff\xff\xff", "not the head"),
        (b"\xbf", "not the head"),
    ],
)
def test_a_frame_that_says_too_much_is_refused_before_it_is_read(head: bytes, reason: str) -> None:
    asked: list[int] = []
    source = io.BytesIO(frame(MANIFEST.encode()) + head + bytes(100))

    def reading(size: int) -> bytes:
        asked.append(size)
        return source.read(size)

    with pytest.raises(DecodeError, match=reason) as caught:
        check_all(Reader(reading, TOWN.chain))
    assert max(asked) <= max(len(MANIFEST.encode()), 100)
    assert caught.value.path == f"offset {len(frame(MANIFEST.encode()))}"


def test_a_manifest_that_says_too_much_is_refused_before_it_is_read() -> None:
    head = b"\x5a" + (MANIFEST_BYTES_MAX + 1).to_bytes(4)
    with pytest.raises(DecodeError, match="offset 0: the manifest says"):
        read(head + bytes(10))


@pytest.mark.parametrize(
    "data",
    [
        b"\x84\x00\x10\x58\x48" + bytes(72) + b"\x9b" + b"\x7f" + b"\xff" * 7,  # rows without end
        b"\x84\x00\x10\x5b" + b"\x7f" + b"\xff" * 7,
        b"\x84\x00\x10\x58\x48" + bytes(72) + b"\x9f\x40\xff",
        b"\x84\x02\x10\x00\x58\x80" + bytes(128),
        b"\x84\x01\x00\x00\x58\x80" + bytes(128),
        b"",
    ],
)
def test_a_piece_of_another_form_is_malformed(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_piece(data)


def test_a_piece_that_is_too_long_is_malformed() -> None:
    with pytest.raises(DecodeError, match="at most"):
        decode_piece(bytes(PIECE_BYTES_MAX + 1))


# --- the manifest -------------------------------------------------------------------------------


def refused(manifest: Manifest) -> str:
    with pytest.raises((DecodeError, VerificationError)) as caught:
        verify_manifest(decode_manifest(manifest.encode()), TOWN.chain)
    return str(caught.value)


def test_each_part_of_a_manifest_leads_to_the_certificate() -> None:
    other = certify(TOWN.genesis, TOWN.rows, height=13).manifest(BITS)
    assert "another network" in refused(replace(MANIFEST, contents=bytes(32)))
    assert "block" in refused(replace(MANIFEST, block=other.block))
    assert "block" in refused(replace(MANIFEST, certificate=other.certificate))
    assert "history" in refused(replace(MANIFEST, history=(bytes(32), *MANIFEST.history[1:])))
    assert "another number of hashes" in refused(replace(MANIFEST, history=other.history))
    assert "state root" in refused(replace(MANIFEST, row=MANIFEST.row[32:] + MANIFEST.row[:32]))
    assert "one number a validator" in refused(replace(MANIFEST, numbers=(1, 2, 3)))
    assert "not one hash for each" in refused(replace(MANIFEST, depth=2))
    assert "even" in refused(replace(MANIFEST, depth=3, row=MANIFEST.row[:256]))
    deep = replace(MANIFEST, depth=6, row=MANIFEST.row * 4)
    assert "deeper than the upper tree" in refused(deep)
    for parts in ((3, 2), (2, 2), (16,)):
        assert "ascending" in refused(replace(MANIFEST, parts=parts))


def test_a_certificate_of_fewer_or_other_signers_is_refused() -> None:
    certificate = TOWN.certificate
    signatures = certificate.signatures
    for forged in (
        signatures[:2],
        (*signatures[:2], (3, signatures[2][1])),
        (signatures[1], signatures[0], signatures[2]),
        (*signatures[:2], (2, bytes(64))),
    ):
        lying = wire.encode_commit_cert(CommitCert(certificate.statement, forged))
        assert refused(replace(MANIFEST, certificate=lying))


def test_another_magic_or_version_is_refused_with_what_it_is() -> None:
    value = codec.parse(MANIFEST.encode())
    for name, wrong, said in (
        ("magic", "comity bundle", "not a snapshot"),
        ("version", 2, "version 2"),
    ):
        with pytest.raises(DecodeError, match=said):
            decode_manifest(codec.encode({**value, name: wrong}))
    with pytest.raises(DecodeError, match="unknown field"):
        decode_manifest(codec.encode({**value, "more": 1}))


# --- rows ---------------------------------------------------------------------------------------


def rows_of(first: Sequence[int]) -> list[tuple[bytes, Row]]:
    return [
        (kh, row) for kh, row in TOWN.rows.items() if row.value[:1] in [bytes([f]) for f in first]
    ]


def test_there_are_rows_of_every_sort_and_all_are_right() -> None:
    for first in (0, 1, 2):
        assert rows_of([first])
    for kh, row in TOWN.rows.items():
        check_row(TOWN.chain, PATHS, kh, row.vh, row.value)


@given(st.data())
def test_no_byte_of_a_row_can_be_changed_cut_or_added(data: st.DataObject) -> None:
    kh, row = data.draw(st.sampled_from([each for each in TOWN.rows.items() if each[1].value]))
    at = data.draw(st.integers(0, len(row.value) - 1))
    flipped = bytearray(row.value)
    flipped[at] ^= data.draw(st.integers(1, 255))
    for forged in (bytes(flipped), row.value[:at], row.value + b"\x00", row.value + row.value):
        with pytest.raises(ProofError, match=rf"row of key {kh.hex()}"):
            check_row(TOWN.chain, PATHS, kh, row.vh, forged)


def test_a_record_has_as_many_decoys_as_its_leaves_ask_for() -> None:
    kh, row = next(each for each in rows_of([1]) if stored._RECORD.unpack_from(each[1].value)[3])
    lead, stem, names, decoys, version = stored._RECORD.unpack_from(row.value)
    names_end = stored._RECORD.size + stem + names
    layout = stored._layout(kh, row.value[names_end - names : names_end])
    at = names_end + layout.columns.size + len(layout.names) * (16 + 32)
    head = stored._RECORD.pack(lead, stem, names, decoys - 1, version)
    forged = head + row.value[len(head) : at] + row.value[at + 32 :]
    with pytest.raises(ProofError, match=f"row of key {kh.hex()}: .*decoys"):
        check_row(TOWN.chain, PATHS, kh, row.vh, forged)


def test_what_has_an_attachment_holds_its_root() -> None:
    kh, row = rows_of([2])[0]
    at = row.value.index(b"\x58\x20" + split_attached(row.value)[0])
    forged = row.value[:at] + b"\x59" + row.value[at + 1 :]
    with pytest.raises(ProofError, match="the leaf does not hold a root"):
        check_row(TOWN.chain, PATHS, kh, row.vh, forged)


def test_a_tombstone_is_empty_and_nothing_else_is() -> None:
    check_row(TOWN.chain, PATHS, b"\xe0" * 32, ZERO, b"")
    for vh, row in ((ZERO, b"\x00"), (b"\x01" * 32, b"")):
        with pytest.raises(ProofError):
            check_row(TOWN.chain, PATHS, b"\xe0" * 32, vh, row)


def test_the_text_of_a_rule_set_is_bound_by_its_root_and_by_its_place() -> None:
    attached = rows_of([2])
    texts = [each for each in attached if split_attached(each[1].value)[1][:1] == b"\x82"]
    assert len(texts) >= 2
    (kh, row), (_, other) = texts[:2]
    single = row.value[: len(row.value) - len(cut_attached(row.value)[1])]
    with pytest.raises(ProofError):
        check_row(TOWN.chain, PATHS, kh, row.vh, single + cut_attached(other.value)[1])


def test_a_draft_is_bound_with_its_private_part() -> None:
    kh, row = next(each for each in rows_of([2]) if split_attached(each[1].value)[1][:1] == b"\x83")
    attachment = split_attached(row.value)[1]
    single = row.value[: len(row.value) - len(attachment)]
    body, openings, seed = codec.parse(attachment)
    for forged in (
        [body, openings, bytes(32)],
        [body, openings[:-1], seed],
        [body, [codec.encode([["g", True], openings[0][-32:]]), *openings[1:]], seed],
        [body + b"\x00", openings, seed],
    ):
        with pytest.raises(ProofError):
            check_row(TOWN.chain, PATHS, kh, row.vh, single + codec.encode(forged))


def test_entries_outside_a_prefix_are_refused_at_both_ends() -> None:
    one = b"\x50" + bytes(71)
    check_entries(0b1_0101, one)
    for name in (0b1_0100, 0b1_0110):
        with pytest.raises(ProofError, match="outside"):
            check_entries(name, one)
    check_entries(0b1_11, b"\xff" * 72)
    with pytest.raises(ProofError, match="72 bytes"):
        check_entries(1, one[1:])
    check_entries(1, b"")


def test_an_empty_chunk_is_refused_where_something_is_due() -> None:
    name = 0b1_0101
    due = Due(name, subtree_hash(TOWN.depth, name, TOWN.chunk(name).entries))
    with pytest.raises(ProofError):
        check_chunk(TOWN.depth, Chunk(name, b"", []), due, 12)


def test_a_chunk_comes_for_a_chunk_and_a_split_for_a_split() -> None:
    checker = Reader(io.BytesIO(FILE).read, TOWN.chain)._checker
    chunk = decode_piece(PIECES[0])
    assert isinstance(chunk, Chunk)
    due = Due(chunk.name, subtree_hash(TOWN.depth, chunk.name, chunk.entries))
    split = encode_split(Split(chunk.name, 0, bytes(128)))
    assert checker.chunk(Piece(due, PIECES[0])) == chunk
    with pytest.raises(ProofError, match=r"chunk 0: .*a split came"):
        checker.chunk(Piece(due, split))
    with pytest.raises(ProofError, match=r"chunk 0: .*a chunk came"):
        checker.split(Piece(due, PIECES[0]))


def test_there_is_an_end_to_splitting() -> None:
    assert may_split(4, 1 << 3, 0)
    assert not may_split(4, 1 << 4, PAGE_ENTRIES_MAX)
    assert may_split(4, 1 << 4, PAGE_ENTRIES_MAX + 1)
    assert not may_split(4, 1 << NODE_BITS_MAX, PAGE_ENTRIES_MAX + 1)


def test_entries_are_counted_against_the_root_at_the_end() -> None:
    reader = Reader(io.BytesIO(FILE).read, TOWN.chain)
    reader.finish(len(TOWN.rows))
    for count in (len(TOWN.rows) - 1, len(TOWN.rows) + 1):
        with pytest.raises(ProofError, match=f"{count} entries, but the state root binds"):
            reader.finish(count)


def test_a_chunk_of_another_node_is_refused_whatever_it_holds() -> None:
    chunk = TOWN.chunk(0b1_0101)
    due = Due(0b1_0110, subtree_hash(TOWN.depth, 0b1_0101, chunk.entries))
    with pytest.raises(ProofError, match="another node"):
        check_chunk(TOWN.depth, chunk, due, 12)


def test_places_are_named_by_index_and_by_the_path_below() -> None:
    assert place_of(1 << 10 | 517, 10) == "chunk 517"
    assert place_of((1 << 10 | 517) << 4 | 0b0110, 10) == "chunk 517 (0110 below it)"
