"""A gallery in a real browser: its environment, its themes, and what axe-core finds."""

from support.accessibility import judge_page


def environment(folder):
    return {
        "KLING_NB_LEDGER": str(folder / "ledger.db"),
        "KLING_NB_MEDIA": str(folder / "kling_media"),
        "KLING_NB_PROVIDER": "sandbox",
    }


def serious(page, root):
    """What axe holds against a part of the page, serious or worse."""
    passed, faults = judge_page(page, root)
    assert passed > 5
    return faults


def theme(page, name):
    """Change the theme as the menu does, and wait until it is there."""
    page.evaluate("(theme) => jupyterapp.commands.execute('apputils:change-theme', { theme })", name)
    light = "false" if "Dark" in name else "true"
    page.wait_for_function(f"() => document.body.dataset.jpThemeLight === '{light}'")
