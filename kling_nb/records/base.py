"""What every record stands on: a frozen model, and moments in UTC."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict

__all__ = ["Fact", "Record", "utc_now"]


def _to_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


Moment = Annotated[AwareDatetime, AfterValidator(_to_utc)]


def utc_now() -> datetime:
    """Give the time now, in UTC, to the millisecond."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


class Record(BaseModel):
    """A value: never changed, only replaced; fields that it does not know are left out."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Fact(Record):
    """A value that anybody may have written down: every type is exact, and an error repeats no input."""

    model_config = ConfigDict(strict=True, hide_input_in_errors=True)
