"""Sealed values: what opens them, and what each way of not opening is called."""

import base64
import copy
import hashlib
import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.references import Reference, parse_template
from config.sealing import (
    CONFIG,
    KEY_BYTES,
    VAULT_VALUES,
    DamagedText,
    KeyRing,
    SealedFault,
    SealingKey,
    UnknownKey,
    WrongKey,
    derived_id,
)
from tests.planted import planted, planted_key

ONE, TWO = bytes(range(32)), bytes(range(32, 64))
RING = KeyRing([SealingKey("one", ONE), SealingKey("two", TWO)])
PLAIN = planted("sealed").encode()

IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}", fullmatch=True)
PURPOSES = st.sampled_from([CONFIG, VAULT_VALUES])


def apart(sealed: str) -> tuple[str, str]:
    key_id, _, text = sealed.partition(":")
    return key_id, text


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def with_checksum(key_id: str, body: bytes) -> str:
    return encoded(body + hashlib.sha256(key_id.encode() + body).digest()[:4])


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@given(key=st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES), key_id=IDS, plain=st.binary(), purpose=PURPOSES)
def test_what_is_sealed_opens_to_the_same_bytes(key: bytes, key_id: str, plain: bytes, purpose: str) -> None:
    ring = KeyRing([SealingKey(key_id, key)])
    sealed = ring.seal(plain, purpose)
    found_id, text = apart(sealed)
    assert key_id == found_id
    assert re.fullmatch(r"[A-Za-z0-9_-]+", text)
    assert plain == ring.open(key_id, text, purpose)


@given(plain=st.binary())
def test_the_form_is_a_nonce_the_ciphertext_with_its_tag_and_a_checksum(plain: bytes) -> None:
    key_id, text = apart(RING.seal(plain, CONFIG))
    data = decoded(text)
    assert 12 + len(plain) + 16 + 4 == len(data)
    assert text == with_checksum(key_id, data[:-4])


def test_every_sealed_value_reads_as_a_reference_without_a_default() -> None:
    # One in 64 nonces would begin with `-`, which after a colon begins a default.
    for _ in range(1000):
        sealed = RING.seal(PLAIN, CONFIG)
        key_id, text = apart(sealed)
        parts = {"key_id": key_id, "text": text}
        assert (Reference("sealed", parts, "${sealed:one:…}"),) == parse_template(f"${{sealed:{sealed}}}")


def test_no_nonce_comes_twice() -> None:
    nonces = {decoded(apart(RING.seal(PLAIN, CONFIG))[1])[:12] for _ in range(1000)}
    assert 1000 == len(nonces)


def test_the_first_key_seals_and_every_key_opens() -> None:
    former = KeyRing([SealingKey("two", TWO)])
    assert "one" == apart(RING.seal(PLAIN, CONFIG))[0]
    assert PLAIN == RING.open(*apart(former.seal(PLAIN, CONFIG)), CONFIG)
    assert ("one", ("one", "two")) == (RING.first_id, RING.ids)


def test_every_flipped_bit_of_the_data_is_damage_and_with_a_new_checksum_a_wrong_key() -> None:
    key_id, text = apart(RING.seal(PLAIN, CONFIG))
    data = decoded(text)
    for bit in range(len(data) * 8):
        changed = flipped(data, bit)
        with pytest.raises(DamagedText):
            RING.open(key_id, encoded(changed), CONFIG)
        if bit < (len(data) - 4) * 8:
            with pytest.raises(WrongKey):
                RING.open(key_id, with_checksum(key_id, changed[:-4]), CONFIG)


@given(st.data(), st.binary(max_size=8))
def test_every_flipped_bit_of_the_written_text_and_of_the_id_is_damage(data: st.DataObject, plain: bytes) -> None:
    # Also of the bits that the last character has to spare.
    key_id, text = apart(RING.seal(plain, CONFIG))
    bit = data.draw(st.integers(0, len(text) * 8 - 1))
    with pytest.raises(DamagedText):
        RING.open(key_id, flipped(text.encode(), bit).decode("latin-1"), CONFIG)
    bit = data.draw(st.integers(0, len(key_id) * 8 - 1))
    with pytest.raises(DamagedText):
        RING.open(flipped(key_id.encode(), bit).decode("latin-1"), text, CONFIG)


@given(st.data(), st.binary(max_size=8))
def test_a_cut_text_is_damaged(data: st.DataObject, plain: bytes) -> None:
    key_id, text = apart(RING.seal(plain, CONFIG))
    with pytest.raises(DamagedText, match="was changed or cut"):
        RING.open(key_id, text[: data.draw(st.integers(0, len(text) - 1))], CONFIG)


@given(key_id=st.text(), text=st.text())
def test_any_other_text_is_a_fault_that_shows_nothing_of_it(key_id: str, text: str) -> None:
    with pytest.raises(DamagedText) as fault:
        RING.open(key_id, text, CONFIG)
    assert "was changed or cut: copy it whole, or seal the value anew with `./sluice seal`" == str(fault.value)


@pytest.mark.parametrize("text", ["", "A", "AAAA", "=", "AAAA=", "é" * 60, "\ud800", "A" * 43 + "+"])
def test_what_was_never_sealed_is_damaged(text: str) -> None:
    with pytest.raises(DamagedText):
        RING.open("one", text, CONFIG)


def test_padding_and_the_other_alphabet_are_damage() -> None:
    while True:
        key_id, text = apart(RING.seal(b"1", CONFIG))
        if "-" in text or "_" in text:
            break
    for other in (text + "=", text + "==", text.replace("-", "+").replace("_", "/"), text + "\n", " " + text):
        with pytest.raises(DamagedText):
            RING.open(key_id, other, CONFIG)


def test_a_key_of_the_same_id_does_not_open_what_another_has_sealed() -> None:
    other = KeyRing([SealingKey("one", TWO)])
    with pytest.raises(WrongKey, match="the master key `one`") as fault:
        other.open(*apart(RING.seal(PLAIN, CONFIG)), CONFIG)
    assert fault.value.__suppress_context__


def test_what_is_sealed_for_one_purpose_opens_for_no_other() -> None:
    with pytest.raises(WrongKey, match="another purpose"):
        RING.open(*apart(RING.seal(PLAIN, VAULT_VALUES)), CONFIG)


def test_a_value_that_is_given_another_id_does_not_open() -> None:
    # Both ids are of one key: it is the id that the value is bound to.
    ring = KeyRing([SealingKey("one", ONE), SealingKey("same", ONE)])
    _, text = apart(ring.seal(PLAIN, CONFIG))
    with pytest.raises(DamagedText):
        ring.open("same", text, CONFIG)
    with pytest.raises(WrongKey):
        ring.open("same", with_checksum("same", decoded(text)[:-4]), CONFIG)


def test_a_value_of_an_unknown_key_is_told_with_the_ids_that_are_known() -> None:
    ring = KeyRing([SealingKey("three", bytes(32))])
    key_id, text = apart(ring.seal(PLAIN, CONFIG))
    with pytest.raises(UnknownKey, match=r"sealed with the key `three`.*\(`one`, `two`\)") as fault:
        RING.open(key_id, text, CONFIG)
    assert text not in str(fault.value)


def test_a_damaged_value_of_an_unknown_key_is_damaged() -> None:
    with pytest.raises(DamagedText):
        RING.open("three", "A" * 80, CONFIG)


def test_one_value_that_does_not_open_leaves_the_others_as_they_are() -> None:
    key_id, text = apart(RING.seal(PLAIN, CONFIG))
    for wrong in ("AAAA", with_checksum("one", bytes(40))):
        with pytest.raises(SealedFault):
            RING.open("one", wrong, CONFIG)
    assert PLAIN == RING.open(key_id, text, CONFIG)


def test_a_key_is_shown_by_its_id_alone() -> None:
    key = SealingKey("one", planted_key("one"))
    assert "SealingKey('one')" == repr(key) == str(key) == f"{key}"
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="never pickled or copied"):
            attempt(key)
    assert not hasattr(key, "__dict__")


@pytest.mark.parametrize("key_id", ["", "-a", ".a", "a:b", "a b", "a" * 33, "ä", "a\n"])
def test_an_id_that_could_not_stand_in_a_reference_is_refused(key_id: str) -> None:
    with pytest.raises(ValueError, match="letters, digits"):
        SealingKey(key_id, ONE)


def test_a_key_of_another_length_and_a_ring_without_keys_or_with_one_id_twice_are_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        SealingKey("a", ONE[1:])
    with pytest.raises(ValueError, match="has keys"):
        KeyRing([])
    with pytest.raises(ValueError, match="id of its own"):
        KeyRing([SealingKey("a", ONE), SealingKey("a", TWO)])


def test_a_derived_id_is_that_of_the_key() -> None:
    assert "k" + hashlib.sha256(b"sluice key id\0" + ONE).hexdigest()[:8] == derived_id(ONE)
    assert derived_id(ONE) != derived_id(TWO)
