"""How long the tests of faults take: `TEST_FORM` is short (in `make test`), middle or full (`make test-faults`)."""

import os

FORMS = ("short", "middle", "full")
FORM = os.environ.get("TEST_FORM") or "short"
if FORM not in FORMS:
    raise ValueError(f"TEST_FORM: one of {', '.join(FORMS)}, not {FORM!r}")


def by_form(short: int, middle: int, full: int) -> int:
    """The number of the form that runs."""
    return (short, middle, full)[FORMS.index(FORM)]
