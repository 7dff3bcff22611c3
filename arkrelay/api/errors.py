"""Our exceptions as the contract's error bodies (Ark contract §2.2), and the request id that goes with each."""

import time
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web

from arkrelay.api.parts import RATE, REQUEST_ID
from arkrelay.api.refusal import ApiError
from arkrelay.config.errors import ConfigErrors
from arkrelay.model.errors import ArkrelayError, Busy, Conflict, Exists, NotFound, Refused, StoreError, StoreFull
from arkrelay.store.ids import Tokens

log = structlog.get_logger()
_tokens = Tokens()  # of the event loop's thread

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

RETRY_AFTER_MAX_S = 60  # clients heed no longer one: they would come back after half a second (Ark contract §6)

# what aiohttp refuses by itself, and a route's body
_CODES = {404: "not_found", 405: "method_not_allowed", 413: "payload_too_large"}
_MESSAGES = {404: "There is no such path.", 405: "This path does not know the method {method}."}


def new_request_id() -> str:
    """Return a new id: ``req_`` and 16 letters and digits (Ark contract §2.4), in the order of time.

    The log's index of them grows at its end; with ids of chance alone each insert would touch another page.
    """
    return "req_" + _tokens.new(time.time())


def internal_error() -> ApiError:
    """Return what is told of a surprise of ours: nothing."""
    return ApiError(500, "internal_error", "Something went wrong on our side; the log knows it by this request id.")


def error_response(error: ApiError, request_id: str) -> web.Response:
    """Return the error as the contract writes it."""
    body: dict[str, object] = {"code": error.code, "message": error.message}
    if error.field is not None:
        body["field"] = error.field
    headers = {"X-Request-Id": request_id}
    if error.retry is not None:
        headers["x-should-retry"] = str(error.retry).lower()
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(min(error.retry_after_s, RETRY_AFTER_MAX_S))
    answer = {"success": False, "error": body, **(error.more or {}), "meta": {"requestId": request_id}}
    response = web.json_response(answer, status=error.status, headers=headers)
    if error.close:
        response.force_close()
    return response


async def finish_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Put on every answer what each must have; aiohttp calls it before the first byte is sent."""
    request_id = request.get(REQUEST_ID) or new_request_id()  # aiohttp refuses an unknown Expect before any of us
    response.headers["X-Request-Id"] = request_id
    response.headers["Server"] = "arkrelay"
    if (rate := request.get(RATE)) is not None:
        response.headers.update(rate.headers)
    response.headers.setdefault("Cache-Control", "no-store")  # answers hold mail
    response.headers.setdefault("X-Content-Type-Options", "nosniff")


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give every request an id, and every exception its answer."""
    request_id = request[REQUEST_ID] = new_request_id()
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        code = _CODES.get(error.status, "validation_error")
        message = _MESSAGES.get(error.status, error.reason).format(method=request.method)
        response = error_response(ApiError(error.status, code, message), request_id)
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
    except ArkrelayError as error:
        response = error_response(_translate(error), request_id)
        if isinstance(error, StoreError):
            log.warning("request_failed", request_id=request_id, path=request.path, error=str(error))
    except Exception as error:
        if isinstance(error, ConnectionError) and request.transport is None:
            log.debug("client_gone", request_id=request_id, path=request.path)  # and nobody reads the answer
        else:
            log.exception("request_crashed", request_id=request_id, method=request.method, path=request.path)
        response = error_response(internal_error(), request_id)
    return response


def _translate(error: ArkrelayError) -> ApiError:
    match error:
        case ApiError():
            return error
        case NotFound():
            return ApiError(404, "not_found", str(error))
        case Exists():
            return ApiError(409, "already_exists", str(error), retry=False)
        case Busy():
            return ApiError(409, "conflict", str(error), retry_after_s=1)
        case Conflict():
            return ApiError(409, "conflict", str(error), retry=False)
        case Refused():
            return _refused(error)
        case ConfigErrors():
            return _broken_files(error)
        case StoreFull():
            return ApiError(507, "insufficient_storage", "The disk of the relay is full: nothing was accepted.")
        case StoreError():
            return ApiError(503, "store_unavailable", "The database is busy or unavailable: try again.")
        case _:
            return ApiError(422, "validation_error", str(error))


def _broken_files(errors: ConfigErrors) -> ApiError:
    """Files that cannot be used: the first problem in the message, and all of them in ``problems``."""
    problems = [{"file": one.file, "key": one.key, "reason": one.reason} for one in errors.problems]
    message = f"The configuration cannot be used: {errors.problems[0]}"
    return ApiError(422, "validation_error", message, more={"problems": problems})


def _refused(error: Refused) -> ApiError:
    """Policy's refusal: 4xx replies are about the moment, 5xx about the request."""
    if error.rest:
        return ApiError(422, error.rest, error.text, field=error.field)
    if error.enhanced == "4.3.1":
        return ApiError(507, "insufficient_storage", error.text)
    if error.code == 421:
        return ApiError(503, "unavailable", error.text)
    if error.code < 500:
        return ApiError(422, "send_limit_exceeded", error.text, field=error.field)
    if error.code == 535:  # its tenant or credential went between the key's look-up and now
        return ApiError(401, "expired_api_key", error.text)
    code = "domain_not_verified" if error.field == "from" else "validation_error"
    return ApiError(422, code, error.text, field=error.field)
