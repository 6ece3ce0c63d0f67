"""What axe-core holds against a part of a page.

Invariants: only faults of impact serious or critical count; the number of passed rules comes along, so that a
part that is not there cannot pass.
"""

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page


def judge_page(page: Page, root: str) -> tuple[int, list[tuple[str, list[str]]]]:
    """Give how many rules passed, and the serious faults with their elements."""
    found = Axe().run(page, context=root).response
    serious = [fault for fault in found["violations"] if fault["impact"] in {"serious", "critical"}]
    return len(found["passes"]), [
        (fault["id"], [node["html"][:200] for node in fault["nodes"]]) for fault in serious
    ]
