"""What requests may say, as pydantic models: shapes only.

Knows no store. Ranges of a network's and a training's settings live in `models.config` alone and are checked there.
Invariant: an unknown field is refused by name, so that a typing error never trains or writes with a default.
"""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _no_surrogates(text: str) -> str:
    """JSON can spell half a surrogate pair; it is no character, and nothing downstream could encode it."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("holds half a surrogate pair, which is no character")
    return text


Text = Annotated[str, AfterValidator(_no_surrogates)]
"""A string that can be stored and sent: no lone surrogates."""


class Request(BaseModel):
    """A request body: unknown fields and NaN are refused, numbers are not guessed from strings."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class GenerateRequest(Request):
    """What to write, with which model, and how freely to draw."""

    model: Text = Field(
        min_length=1,
        max_length=200,
        description="Id or name of a model, or `name@step` for one checkpoint; a name means its newest model.",
        examples=["shakespeare"],
    )
    prompt: Text = Field("", description="Text to go on from. Empty: the network starts as at a line's beginning.")
    max_characters: int = Field(500, ge=1, le=1_000_000, description="Characters to write at most.")
    temperature: float = Field(
        1.0,
        ge=0,
        le=10,
        description="Below 1 more careful, above 1 more daring; 0 always takes the likeliest character.",
    )
    top_k: int = Field(0, ge=0, le=1_000_000, description="Draw from the k likeliest characters only; 0: from all.")
    top_p: float = Field(
        1.0, gt=0, le=1, description="Draw from the likeliest characters that together hold this share."
    )
    min_p: float = Field(0.0, ge=0, le=1, description="Leave out characters below this share of the likeliest one's.")
    seed: int | None = Field(
        None, ge=0, le=2**63 - 1, description="Same model, prompt and seed: same text. Unset: drawn, and told."
    )
    stop: list[Annotated[Text, Field(min_length=1, max_length=256)]] = Field(
        default_factory=list, max_length=16, description="Texts that end the writing; they are not written themselves."
    )
