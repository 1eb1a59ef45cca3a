"""Lists as OpenAI's API pages them: the id of the last item is the cursor.

Invariant: a page never says that it is the last one while there is more, whatever was asked for.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Generic, Literal, TypeVar

from fastapi import Query
from pydantic import BaseModel

from app.schemas import Digits
from app.store.errors import InvalidCursor
from app.store.pages import Page

MOST_ITEMS = 1000
"""On a page; who asks for more, as OpenAI allows for files, gets the rest from the next ones."""

T = TypeVar("T")
Row = TypeVar("Row")

Limit = Annotated[int, Query(ge=1, le=10_000, description="Items on a page; at most 1,000 are given."), Digits]
After = Annotated[str | None, Query(max_length=100, description="Id of the last item of the page before.")]


class Item(BaseModel):
    """Whatever has an id."""

    id: str


ItemT = TypeVar("ItemT", bound=Item)


class ListDocument(BaseModel, Generic[ItemT]):
    """A page of a list."""

    object: Literal["list"] = "list"
    data: list[ItemT]
    has_more: bool
    first_id: str | None
    last_id: str | None


def list_document(items: Sequence[ItemT], *, has_more: bool) -> ListDocument[ItemT]:
    """A page of these items."""
    ids = [item.id for item in items]
    return ListDocument(
        data=list(items), has_more=has_more, first_id=ids[0] if ids else None, last_id=ids[-1] if ids else None
    )


def page_document(page: Page[Row], make: Callable[[Row], ItemT]) -> ListDocument[ItemT]:
    """A page of rows as a page of documents."""
    return list_document([make(row) for row in page.data], has_more=page.next is not None)


def cut(items: Sequence[ItemT], limit: int, after: str | None) -> ListDocument[ItemT]:
    """A page of a list that is there as a whole. Raises InvalidCursor."""
    begin = 0
    if after is not None:
        begin = next((place for place, item in enumerate(items, 1) if item.id == after), 0)
        if not begin:
            raise InvalidCursor(after)
    return list_document(items[begin : begin + limit], has_more=begin + limit < len(items))
