"""Changes to the configuration files that REST makes, and the refusals of ``relay.settings`` in its words.

A key on hold may look at everything that it owns, and change none of it: it could release itself, or make another.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from arkrelay.api import auth
from arkrelay.api.ask import Ask
from arkrelay.api.refusal import ApiError
from arkrelay.model.tenant import Credential, Domain, TrackDomain, Webhook
from arkrelay.relay.settings import ChangeRefused

T = TypeVar("T")
D = TypeVar("D", Credential, Domain, TrackDomain, Webhook)


async def change(ask: Ask[Any, Any], edit: Callable[[], T]) -> T:
    """Return what ``edit`` returned, a function of ``config.tenants``, when its change is on disk and in force.

    Raises NotFound and Conflict as it does, and ApiError: 403 for a key on hold, 422 with the key when what it wrote
    would not be valid, 409 when other files are broken, 500 and 507 when the file cannot be written. In all these
    cases nothing was written.
    """
    with changing(ask):
        return await ask.parts.editor.change(ask.caller.tenant_id, edit)


@contextlib.contextmanager
def changing(ask: Ask[Any, Any]) -> Iterator[None]:
    """Refuse a key on hold; what ``relay`` refuses inside is said in the contract's words, as by ``change``."""
    require_changer(ask)
    try:
        yield
    except ChangeRefused as error:
        raise _REFUSALS[error.kind](error) from None


def newest_first(things: Iterable[D]) -> list[D]:
    """Return them by their date, the newest first; of one date, what stands further down in its file is newer."""
    return [one for _, one in sorted(enumerate(things), key=lambda pair: (pair[1].created_at, pair[0]), reverse=True)]


def require_changer(ask: Ask[Any, Any], *, test: bool = True) -> None:
    """Refuse a key on hold, and without ``test`` a test key: mostly its operation has refused that before."""
    auth.require_changer(ask.caller, test=test)


_REFUSALS: dict[str, Callable[[ChangeRefused], ApiError]] = {
    "unfit": lambda error: ApiError(400, "validation_error", str(error), field=error.key),
    "broken": lambda error: ApiError(409, "conflict", str(error), retry=False),
    "invalid": lambda error: ApiError(422, "validation_error", str(error), field=error.key or None),
    "full": lambda error: ApiError(507, "insufficient_storage", str(error)),
    "unwritable": lambda error: ApiError(500, "internal_error", str(error), retry=False),
}
