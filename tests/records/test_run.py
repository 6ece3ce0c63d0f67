"""A record changed by field: checked as a whole record would be, at the price of the field."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from pydantic import ValidationError

from kling_nb.records.run import RunRecord, RunStatus, changed
from support.clips import make_record

EAST = timezone(timedelta(hours=9))


def test_a_changed_field_is_what_a_whole_check_makes_of_it():
    """Words become states, times UTC, data models; names of no field are left out, the rest is untouched."""
    record = make_record(tags={"scene": "1"})
    media = {"file": "a.mp4", "sha256": "0" * 64, "size": 1, "codec": "libdav1d"}
    changes = {"status": "queued", "accepted_at": datetime(2026, 11, 21, 9, tzinfo=EAST), "media": media}
    made = changed(record, {**changes, "no_such_field": 1})
    assert made == RunRecord.model_validate({**record.model_dump(), **changes})
    assert (made.status, made.accepted_at) == (RunStatus.QUEUED, datetime(2026, 11, 21, tzinfo=UTC))
    assert made.media.codec == "av1"
    assert record.status is RunStatus.CREATED


@pytest.mark.parametrize(
    "wrong",
    [{"status": "paused"}, {"id": "NO"}, {"take": -1}, {"accepted_at": datetime(2026, 1, 1)}, {"media": {}}],  # noqa: DTZ001
    ids=repr,
)
def test_a_value_that_is_none_for_its_field_is_refused(wrong):
    """What a whole check refuses is refused here."""
    with pytest.raises(ValidationError):
        changed(make_record(), wrong)
