"""What can go wrong in the store, by name.

Knows no SQL and no HTTP; the service maps these to statuses in one table. Invariant: whoever raises one of these has
changed nothing that a reader can see; DatabaseUnreachable alone leaves that open.
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
    """As many jobs wait as may, in all or of one API key."""

    def __init__(self, limit: int, *, of_key: bool = False) -> None:
        whose = " of this API key" if of_key else ""
        waiting = f"1 job{whose} is waiting" if limit == 1 else f"{limit} jobs{whose} are waiting"
        super().__init__(f"{waiting} already, no more are taken")
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


class DatabaseUnreachable(StoreError):
    """The server of the database does not answer, or has broken off: it is being started anew, say. Try again.

    What was being committed just then may have been: whoever writes it again must mind that.
    """


class DatabaseFailed(StoreError):
    """The database did not do what it should: an error of the disk, a damaged file, no connection free.

    Whether trying again helps is not known; a transaction that this broke off has changed nothing.
    """


class DiskFull(StoreError):
    """The disk has no room for what was to be stored."""

    def __init__(self) -> None:
        super().__init__("the disk is full")


class Damaged(StoreError):
    """A database file is not what was stored: `what` names each thing that is wrong."""

    def __init__(self, path: object, what: list[str]) -> None:
        super().__init__(f"{path} is damaged: {'; '.join(what)}")
        self.what = what


class BackupRefused(StoreError):
    """A backup cannot be made, or restored, as things are; the message says why, and what to do."""


class NotMoved(StoreError):
    """A database was not moved to another, which is as it was; the message says why, and what to do."""
