"""Why a clip did not come; apart from what fetches it, so that whoever only looks loads no HTTP client."""

from kling_nb.errors import Charged, StoreError

__all__ = ["DownloadError"]


class DownloadError(StoreError):
    """A clip could not be fetched; the run that made it is unharmed.

    Args:
        what: What happened, as one sentence.
        http_status: The status of the answer, if there was one.
        host_unknown: Whether the link's host is not on the provider's list, so that nothing was fetched.
        cure: What is safe to do now.
        charged: As for `KlingError`; a download itself costs nothing and knows nothing of the run's charge.

    Example:
        >>> DownloadError("The link is stale.", http_status=403).http_status
        403
    """

    def __init__(
        self,
        what: str,
        *,
        http_status: int | None = None,
        host_unknown: bool = False,
        cure: str = "",
        charged: Charged = "unknown",
    ) -> None:
        self.http_status = http_status
        self.host_unknown = host_unknown
        super().__init__(what, charged=charged, cure=cure)
