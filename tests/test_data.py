"""The copied prompts are what their README says."""

import hashlib
import json
from collections import Counter

from support.paths import TESTS

DATA = TESTS / "data"
PROMPTS = DATA / "vbench_prompts.jsonl"


def test_the_prompts_are_the_ones_that_were_taken():
    """File, sum and licence belong together."""
    assert hashlib.sha256(PROMPTS.read_bytes()).hexdigest() in (DATA / "README.md").read_text("utf-8")
    assert "Apache License" in (DATA / "VBENCH-LICENSE.txt").read_text("utf-8")


def test_the_prompts_hold_the_traps_that_the_readme_counts():
    """Other tests may rely on these counts."""
    rows = [json.loads(line) for line in PROMPTS.read_text("utf-8").splitlines()]
    old = [row["prompt_en"] for row in rows if row["suite"] == "vbench"]
    new = [row["prompt_en"] for row in rows if row["suite"] == "vbench2"]
    assert (len(old), len(new)) == (946, 1230)
    assert sum(count > 1 for count in Counter(old).values()) == 2
    assert len(set(old)) - len({prompt.lower() for prompt in old}) == 1
    assert sum(not prompt.isascii() for prompt in old) == 1
    assert sum(len(prompt) > 512 for prompt in new) == 89
    assert max(map(len, old + new)) <= 2500
    assert sum(row["dimension"] == ["Complex_Plot"] and "auxiliary_info" in row for row in rows) == 60
