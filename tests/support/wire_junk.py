"""Any reply at all: junk bytes, and JSON that wears a contract's names with values it never promised."""

import json

from hypothesis import strategies as st

from kling_nb.providers.messages import Reply

STATUSES = [200, 201, 202, 204, 302, 400, 401, 402, 403, 404, 409, 422, 429, 500, 503]
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)


@st.composite
def replies(draw, names, word_name, words):
    """Draw a reply whose keys are `names` and whose state, if any, is one of `words` or junk."""
    keys = st.sampled_from(names.split())
    values = st.recursive(
        LEAVES,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=6),
        max_leaves=12,
    )
    body = draw(st.dictionaries(keys, values, max_size=6))
    if draw(st.booleans()):
        body[word_name] = draw(st.sampled_from(words.split()) | values)
    raw = draw(st.none() | st.binary(max_size=30))
    text = json.dumps(body).encode() if raw is None else raw
    return Reply(status=draw(st.sampled_from(STATUSES)), headers={}, body=text)
