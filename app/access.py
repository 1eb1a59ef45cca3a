"""Which call needs which scope of an API key: the one table that access is decided by.

Knows calls by the names of their functions, and no request. Invariant: what is not in this table is for `admin` alone,
and what is not named in `OPEN` asks for a key.
"""

from collections.abc import Mapping

from app.errors import Problem
from app.store.api_keys import ApiKey, Scope

OPEN = ("healthz", "readyz", "show_page", "show_part_of_page")
"""Answered without a key: orchestrators, load balancers and container engines ask the first two, and have none to show;
the page, which is the same for everybody, is where a person is asked for one."""

_READ = frozenset({Scope.READ})
_GENERATE = frozenset({Scope.GENERATE})
_TRAIN = frozenset({Scope.TRAIN})
_ADMIN: frozenset[Scope] = frozenset()
_FIND_MODEL = frozenset({Scope.READ, Scope.GENERATE})  # whoever generates must find out from what

SCOPES: Mapping[str, frozenset[Scope]] = {
    "generate": _GENERATE,
    "generate_by_query": _GENERATE,
    "score": _GENERATE,
    "upload_corpus": _TRAIN,
    "list_corpora": _READ,
    "get_corpus": _READ,
    "download_corpus": _READ,
    "delete_corpus": _ADMIN,
    "create_job": _TRAIN,
    "list_jobs": _READ,
    "get_job": _READ,
    "cancel_job": _TRAIN,
    "pause_job": _TRAIN,
    "resume_job": _TRAIN,
    "delete_job": _ADMIN,
    "get_metrics": _READ,
    "follow_job": _READ,
    "get_loss_png": _READ,
    "get_loss_svg": _READ,
    "upload_model": _TRAIN,
    "get_service_metrics": _READ,
    "list_models": _FIND_MODEL,
    "get_model": _FIND_MODEL,
    "list_checkpoints": _FIND_MODEL,
    "download_model": _READ,
    "delete_model": _ADMIN,
    # OpenAI's dialect, as their like above.
    "upload_file": _TRAIN,
    "list_files": _READ,
    "get_file": _READ,
    "download_file": _READ,
    "delete_file": _ADMIN,
    "create_fine_tuning_job": _TRAIN,
    "list_fine_tuning_jobs": _READ,
    "get_fine_tuning_job": _READ,
    "cancel_fine_tuning_job": _TRAIN,
    "pause_fine_tuning_job": _TRAIN,
    "resume_fine_tuning_job": _TRAIN,
    "list_fine_tuning_events": _READ,
    "list_fine_tuning_checkpoints": _READ,
    "list_openai_models": _FIND_MODEL,
    "get_openai_model": _FIND_MODEL,
    "delete_openai_model": _ADMIN,
    "complete": _GENERATE,
}
"""Any one of these scopes is enough, and `admin` always is."""


def scopes_for(call: str) -> list[Scope]:
    """The scopes of which one is needed, by name."""
    return sorted(SCOPES.get(call, _ADMIN) | {Scope.ADMIN})


def check_allowed(key: ApiKey | None, call: str) -> None:
    """Return if the key, or nobody where no keys are asked for, may make the call. Raises Problem."""
    needed = scopes_for(call)
    if key is None or key.scopes.intersection(needed):
        return
    needs, has = " or ".join(needed), ", ".join(sorted(key.scopes))
    raise Problem(403, "missing_scope", f"This call needs an API key with the scope {needs}; yours has {has}.")
