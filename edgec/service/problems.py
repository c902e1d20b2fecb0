"""What a request or a release may fail with, as it goes to the client: an HTTP status and a record."""

from __future__ import annotations


class ServiceError(Exception):
    """`code` is a stable word, `status` the HTTP status that goes with it."""

    def __init__(self, status: int, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.hint = hint

    def record(self) -> dict[str, str]:
        """JSON-ready."""
        return {"code": self.code, "message": str(self), "hint": self.hint}
