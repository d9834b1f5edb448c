"""The WSGI layer that asks for an API key."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ocr_serving.errors import Unauthenticated
from ocr_serving.web import errors, exchange

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_SCHEME = "bearer "


class ApiKeys:
    """Lets requests pass that carry one of the keys, `Authorization: Bearer <key>`, or that go to an open path."""

    def __init__(self, app: WSGIApplication, keys: Sequence[str], open_paths: Iterable[str]) -> None:
        """
        Args:
            app: answers the requests.
            keys: if there is none, all requests pass.
            open_paths: paths that need no key.
        """
        self._app = app
        # Out of the environment, a key may be any bytes.
        self._digests = [_digest(key.encode("utf-8", "surrogateescape")) for key in keys]
        self._open = frozenset(open_paths)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """See PEP 3333."""
        if self._digests and environ.get("PATH_INFO") not in self._open:
            header = environ.get("HTTP_AUTHORIZATION", "")
            number = self._number(header)
            if not number:
                what = "This API key is not known here" if header else "An API key is asked for"
                error = Unauthenticated(f"{what}: send the header Authorization: Bearer <key>.")
                return errors.to_response(error, exchange.of(environ))(environ, start_response)
            exchange.of(environ).tenant = f"key {number}"
        return self._app(environ, start_response)

    def _number(self, header: str) -> int:
        """Which key it is, counted from 1; 0 for none. Takes as long whatever the header holds."""
        is_bearer = header[: len(_SCHEME)].lower() == _SCHEME
        # WSGI's form of the bytes that were sent: strip() would take the last one of a UTF-8 "à" for a space.
        given = _digest(header[len(_SCHEME) :].strip(" \t").encode("latin-1"))
        found = 0
        for number, digest in enumerate(self._digests, start=1):
            if hmac.compare_digest(digest, given):
                found = number
        return found if is_bearer else 0


def _digest(key: bytes) -> bytes:
    """Of one length, so that comparing tells nothing about a key's."""
    return hashlib.sha256(key).digest()
