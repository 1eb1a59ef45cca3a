"""Takes API keys out of what is logged.

Headers are not logged; but who puts a key into an address, where it does not belong, has it in the access log, and
problems quote names that came in.
"""

import logging

from app.store.key_text import without_keys


class HideKeys(logging.Filter):
    """Passes every record, its message and the texts that go into it without keys."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg = without_keys(record.msg) if isinstance(record.msg, str) else record.msg
        if isinstance(record.args, tuple):  # as they are: a formatter of uvicorn takes them one by one
            record.args = tuple(without_keys(arg) if isinstance(arg, str) else arg for arg in record.args)
        return True
