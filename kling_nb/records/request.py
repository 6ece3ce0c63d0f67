"""The request, in Kling's own words, and the keys by which a request is known again.

Invariants: a request that exists is within the model's limits; a key depends on what is asked
(request, model, take, and for a run key the provider) and on nothing else: not on field order,
Python version, cell code, or fields that are not set. A new field must default to None, so that no
old key changes.
"""

import hashlib
import inspect
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from difflib import get_close_matches
from functools import wraps
from typing import Annotated, Any, Literal, ParamSpec, Self, TypeVar

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from kling_nb.errors import KlingError, UsageError, did_you_mean
from kling_nb.records.base import Given, faults

__all__ = [
    "MAX_PROMPT_CHARS",
    "MAX_SHOTS",
    "MAX_SHOT_CHARS",
    "OTHER_NAMES",
    "Shot",
    "TextToVideo",
    "make_request",
    "names_checked",
    "no_such_field",
    "no_such_option",
    "other_name",
    "problems_of",
    "request_key",
    "run_key",
]

P = ParamSpec("P")
T = TypeVar("T")

# Kling's limits, as the vendors that forward to its API state them: docs.freepik.com (prompt),
# docs.powertokens.ai and mulerouter.ai (shots), read on 2026-11-21.
MAX_PROMPT_CHARS = 2500
MAX_SHOT_CHARS = 512
MAX_SHOTS = 6
MIN_DURATION_S, MAX_DURATION_S, DEFAULT_DURATION_S = 3, 15, 5
AspectRatio = Literal["16:9", "9:16", "1:1"]
ShotType = Literal["customize", "intelligent"]


def _words(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


class Shot(Given, strict=True):
    """One shot of a storyboard.

    Args:
        prompt: What is seen, 1 to 512 characters.
        duration: Whole seconds, 1 to 15; a provider may ask for more.

    Example:
        >>> Shot(prompt="Wide view of a vineyard", duration=5).duration
        5
    """

    prompt: str = Field(max_length=MAX_SHOT_CHARS, description="What is seen in this shot")
    duration: int = Field(ge=1, le=MAX_DURATION_S, description="Seconds of this shot")

    _not_empty = field_validator("prompt")(_words)


class TextToVideo(Given, strict=True):
    """A request for one clip.

    Args:
        prompt: What is seen, 1 to 2,500 characters. Needed unless there are shots.
        shots: Up to six shots that follow each other.
        duration: Whole seconds, 3 to 15; the sum of the shots where there are any, else 5.
        aspect_ratio: Width to height.
        audio: Whether the clip has sound. Always sent, because a left-out value may bill the dearer rate.
        negative_prompt: What should not be seen, at most 2,500 characters.
        cfg_scale: How closely to follow the prompt, 0 to 1.
        shot_type: Whether the shots are cut as given (`customize`) or by the model (`intelligent`).

    Raises:
        pydantic.ValidationError: A value is out of range; use `make_request` for a one-line error.

    Example:
        >>> TextToVideo(prompt="A red fox in snow").duration
        5
    """

    prompt: str | None = Field(default=None, max_length=MAX_PROMPT_CHARS, description="What is seen")
    shots: tuple[Shot, ...] | None = Field(default=None, max_length=MAX_SHOTS, description="The storyboard")
    duration: Annotated[int, Field(ge=MIN_DURATION_S, le=MAX_DURATION_S, description="Seconds of video")] = (
        DEFAULT_DURATION_S
    )
    aspect_ratio: AspectRatio = Field(default="16:9", description="Width to height")
    audio: bool = Field(default=False, description="Whether the clip has sound")
    negative_prompt: str | None = Field(
        default=None, max_length=MAX_PROMPT_CHARS, description="What should not be seen"
    )
    cfg_scale: float | None = Field(
        default=None, ge=0, le=1, allow_inf_nan=False, description="How closely to follow the prompt"
    )
    shot_type: ShotType | None = Field(default=None, description="Who decides where the cuts are")

    _not_empty = field_validator("prompt", "negative_prompt")(
        lambda text: None if text is None else _words(text)
    )

    @field_validator("shots", mode="before")
    @classmethod
    def _any_sequence(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("cfg_scale", mode="before")
    @classmethod
    def _whole_number_is_a_number(cls, value: object) -> object:
        if isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        return 0.0 if value == 0 and isinstance(value, float) else value

    @model_validator(mode="before")
    @classmethod
    def _duration_of_the_shots(cls, data: object) -> object:
        if not isinstance(data, dict) or data.get("duration") is not None:
            return data
        if not isinstance(data.get("shots"), list | tuple) or not data["shots"]:
            return data
        seconds = [
            s.get("duration") if isinstance(s, dict) else getattr(s, "duration", None) for s in data["shots"]
        ]
        whole = [s for s in seconds if isinstance(s, int)]
        return {**data, "duration": sum(whole)} if len(whole) == len(seconds) else data

    @model_validator(mode="after")
    def _prompt_or_shots(self) -> Self:
        if self.shots is not None and not self.shots:
            raise ValueError("shots: must not be empty")
        if self.prompt is None and self.shots is None:
            raise ValueError("prompt: is missing; write a prompt or shots")
        if self.shots and sum(shot.duration for shot in self.shots) != self.duration:
            total = sum(shot.duration for shot in self.shots)
            raise ValueError(f"duration: is {self.duration} s but the shots add up to {total} s")
        return self

    def canonical(self) -> dict[str, Any]:
        """Give the request as plain data for its key: set fields only, line ends as LF."""
        plain: dict[str, Any] = _lf(self.model_dump(mode="json", exclude_none=True))
        return plain

    @property
    def words(self) -> str:
        """What is asked in words: the prompt, else the shots' prompts joined by line ends."""
        return self.prompt or "\n".join(shot.prompt for shot in self.shots or ())


def _lf(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\r\n", "\n")
    if isinstance(value, dict):
        return {key: _lf(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_lf(item) for item in value]
    return value


def make_request(**fields: Any) -> TextToVideo:
    """Build a request, or say in one line what is wrong with it.

    Args:
        **fields: Fields of `TextToVideo`; None means not set.

    Returns:
        The request.

    Raises:
        UsageError: A field is unknown or out of range.

    Example:
        >>> make_request(prompt="A red fox", duration=5).aspect_ratio
        '16:9'
    """
    try:
        return TextToVideo.model_validate({k: v for k, v in fields.items() if v is not None})
    except ValidationError as error:
        # Where nobody gave one, it is their sum.
        of_shots = bool(fields.get("shots")) and fields.get("duration") is None
        names = {"duration": "the duration of all shots"} if of_shots else {}
        raise UsageError(_explain(error, names), cure="Nothing was sent. Correct it and run again.") from None


def problems_of(fields: Mapping[str, Any], model: type[BaseModel] = TextToVideo) -> dict[str, str]:
    """Say what is wrong with a request, field by field, for a face that shows words beside each.

    Args:
        fields: As for `make_request`.
        model: The request model.

    Returns:
        Words by the place of the field, e.g. `shots.2.prompt`; empty where nothing is wrong. What concerns
        no single field names the one to change.

    Example:
        >>> problems_of({"prompt": "A red fox", "duration": 99})
        {'duration': 'must be at most 15, not 99'}
    """
    try:
        model.model_validate({k: v for k, v in fields.items() if v is not None})
    except ValidationError as error:
        return {
            where or words.partition(":")[0]: words if where else words.partition(": ")[2]
            for where, words in _problems(error)
        }
    return {}


# What other video models and the providers' own wires call things.
_NO_SEED = "this model takes no seed; ask for takes instead"
_NO_IMAGE = "this model makes video from text and takes no image"
_BY_MODEL = "the model decides it, see `%kling models`"

OTHER_NAMES = {
    "ar": "aspect_ratio",
    "cfg": "cfg_scale",
    "generate_audio": "audio",
    "multi_prompt": "shots",
    "negative": "negative_prompt",
    "ratio": "aspect_ratio",
    "seconds": "duration",
    "sound": "audio",
}


def _explain(error: ValidationError, names: Mapping[str, str]) -> str:
    problems = [_sentence(names.get(where, where), words) for where, words in _problems(error)]
    return "; ".join(problems[:5]) + "."


def _sentence(where: str, words: str) -> str:
    if not where:
        where, _, words = words.partition(": ")
    return f"{where} {words}" if words.startswith(("must ", "is ", "has ", "holds ")) else f"{where}: {words}"


def _problems(error: ValidationError) -> Iterator[tuple[str, str]]:
    shot = "must be a shot: a prompt and a duration"
    own = {"tuple_type": "must be a list of shots", "model_type": shot}
    for place, kind, words in faults(error, own, given=True):
        where = ".".join(str(p + 1) if isinstance(p, int) else p[:60] for p in place)
        yield where, no_such_field(str(place[-1])) if kind == "extra_forbidden" else words


def other_name(name: str) -> str:
    """Say what another API's name for something is here; empty where it is nobody's.

    Example:
        >>> other_name("generate_audio")
        'perhaps audio is meant'
    """
    plain = name.lower().replace("-", "_")
    parts = set(plain.split("_"))
    if "seed" in parts:
        return _NO_SEED
    if parts & {"image", "images", "img", "frame", "frames"}:
        return _NO_IMAGE
    if plain in {"resolution", "fps", "width", "height", "size"}:
        return _BY_MODEL
    if parts & {"callback", "webhook"}:
        return "it belongs to the call, as callback_url"
    return f"perhaps {OTHER_NAMES[plain]} is meant" if plain in OTHER_NAMES else ""


def no_such_field(name: str) -> str:
    """Say that a request has no such field, and what may be meant."""
    words = other_name(name)
    if words and not words.startswith("perhaps"):
        return words
    near = get_close_matches(name.lower().replace("-", "_"), TextToVideo.model_fields, n=1)
    words = words or (f"perhaps {near[0]} is meant" if near else "")
    return "there is no such field" + (f", {words}" if words else "")


def no_such_option(unknown: Collection[str], known: Collection[str]) -> UsageError:
    """Give the error of options that a call does not have, with what may be meant."""
    hints = []
    for name in unknown:
        if meant := OTHER_NAMES.get(name):
            hints.append(f"Did you mean {meant}?")
        elif words := other_name(name):
            hints.append(f"{name}: {words}.")
        elif words := did_you_mean(name, known):
            hints.append(words)
    cure = " ".join(["Nothing was sent.", *(hints or ["See `help(kling.submit)`."])])
    return UsageError(f"There is no option {', '.join(map(repr, unknown))}.", cure=cure)


def names_checked(call: Callable[P, T]) -> Callable[P, T]:
    """Have a call that may spend say in words which name it does not know, and what may be meant by it."""
    known = inspect.signature(call).parameters

    @wraps(call)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        if unknown := sorted(kwargs.keys() - known.keys()):
            raise no_such_option(unknown, known)
        try:
            return call(*args, **kwargs)
        except KlingError as error:
            error.may_spend = True
            # A script's traceback ends where it called: none of our frames below help there.
            raise error.with_traceback(None) from error.__cause__

    return checked


def request_key(request: TextToVideo, model: str, take: int = 0) -> str:
    """Name what is asked for, whoever makes it.

    Args:
        request: The request.
        model: Our id of the model.
        take: The planned sample index, 0 or more. Kling has no seed, so the record is the proof.

    Returns:
        `k1:` and 64 hexadecimal digits of SHA-256 over canonical JSON.

    Example:
        >>> request_key(TextToVideo(prompt="fox"), "kling-3.0-pro")[:3]
        'k1:'
    """
    return _key({"request": request.canonical(), "model": model, "take": take})


def run_key(request: TextToVideo, model: str, provider: str, take: int = 0) -> str:
    """Name what is asked for and of whom.

    Args:
        request: The request.
        model: Our id of the model.
        provider: The provider's name.
        take: The planned sample index, 0 or more.

    Returns:
        `k1:` and 64 hexadecimal digits of SHA-256 over canonical JSON.

    Example:
        >>> run_key(TextToVideo(prompt="fox"), "kling-3.0-pro", "runflow")[:3]
        'k1:'
    """
    return _key({"request": request.canonical(), "model": model, "take": take, "provider": provider})


def _key(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return "k1:" + hashlib.sha256(text.encode()).hexdigest()
