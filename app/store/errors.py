"""What can go wrong in the store, by name.

Knows no SQL and no HTTP; the service maps these to statuses in one table. Invariant: whoever raises one of these has
changed nothing that a reader can see.
"""


class StoreError(Exception):
    """The base of all of them."""


class NotFound(StoreError):
    """There is no `kind` known as `key`; `hint` may say how it would be named."""

    def __init__(self, kind: str, key: str, hint: str = "") -> None:
        super().__init__(f"no {kind} {key!r}{hint and f'; {hint}'}")
        self.kind = kind
        self.key = key


class Conflict(StoreError):
    """What is asked does not go with what is there; the message says why."""


class LeaseLost(StoreError):
    """A worker wrote for an attempt that is no longer the running one. It must stop working on the job."""

    def __init__(self, job_id: str, attempt: int) -> None:
        super().__init__(f"attempt {attempt} of {job_id} is not the running one")
        self.job_id = job_id
        self.attempt = attempt


class Corrupted(StoreError):
    """Stored bytes are not what was stored: their SHA-256, length or number of chunks differs."""

    def __init__(self, blob_id: str, what: str = "its SHA-256 differs from the stored one") -> None:
        super().__init__(f"stored bytes {blob_id} are damaged: {what}")
        self.blob_id = blob_id


class QueueFull(StoreError):
    """As many jobs wait as may."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} jobs are waiting already, no more are taken")
        self.limit = limit


class InvalidCursor(StoreError):
    """`after` names nothing in the list that is paged through."""

    def __init__(self, after: str) -> None:
        super().__init__(f"after: {after!r} is not in this list")
        self.after = after


class DatabaseUnusable(StoreError):
    """The database cannot be opened or is not Charsmith's. It was left as it was."""


class SchemaTooNew(DatabaseUnusable):
    """A newer Charsmith has written this database; this one does not know its tables. It was left as it was."""


class DatabaseBusy(StoreError):
    """Others have held the write lock all the time that was waited. Nothing is wrong: try again."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the database was busy for {seconds:g} seconds")


class DatabaseFailed(StoreError):
    """The database did not do what it should: an error of the disk, a damaged file, a lost connection, none free.

    Whether trying again helps is not known; a transaction that this broke off has changed nothing.
    """


class DiskFull(StoreError):
    """The disk has no room for what was to be stored."""

    def __init__(self) -> None:
        super().__init__("the disk is full")
