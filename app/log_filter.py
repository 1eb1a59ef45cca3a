"""Takes API keys out of what is logged.

Headers are not logged; but who puts a key into an address, where it does not belong, has it in the access log, and
messages quote names that came in.
"""

import logging

from app.store.key_text import without_keys


def hide_keys(record: logging.LogRecord) -> bool:
    """Every record passes, its message and the texts that go into it without keys. A filter of loggers and handlers."""
    record.msg = without_keys(record.msg) if isinstance(record.msg, str) else record.msg
    if isinstance(record.args, tuple):  # as they are: uvicorn's formatter takes them one by one
        record.args = tuple(without_keys(each) if isinstance(each, str) else each for each in record.args)
    return True
