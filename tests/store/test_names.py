"""Names and ids are told apart."""

import pytest

from app.store.names import InvalidName, check_name, is_id, is_name, new_id


def test_ids_carry_128_bits_and_are_never_names() -> None:
    ids = {new_id("corpus") for _ in range(1000)}
    assert len(ids) == 1000
    assert all(is_id(key) and not is_name(key) and len(key) == len("corpus_") + 26 for key in ids)
    with pytest.raises(InvalidName, match="form of an id"):
        check_name(ids.pop())


@pytest.mark.parametrize("name", ["a", "Tiny.Shakespeare_v2-final", "x" * 64, "corpus_", "0", "job_short", "...", ".a"])
def test_letters_digits_dots_underscores_and_hyphens_make_a_name(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "x" * 65, "a b", "a@1", "é", "a/b", "a\n", "a\x00", "..\\", "\ud800", ".", ".."])
def test_anything_else_is_refused(name: str) -> None:
    with pytest.raises(InvalidName):
        check_name(name)
