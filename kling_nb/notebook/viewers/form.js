// What a form does in its page: keys, copying, and the buttons on the cards of its runs, the newest on top.
//
// Invariants: nothing is asked of the network; words go in as text, never as markup; what is pressed is only reported
// to the kernel, with the price that stood on the button; buttons on cards are put into the page and never into
// the notebook, so that none is saved; without this script the form works, with its cards in their order.
//
// Joined behind page.js (see widgets.py).

async function copyText(text, near) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Refused, or a page that is not secure: the text is shown and selected, for the keyboard.
    near.querySelector("textarea.kling-copied")?.remove();
    const field = make("textarea", { class: "kling-copied", readonly: true, rows: 4, "aria-label": "Cell to copy" });
    field.value = text;
    near.append(field);
    field.focus();
    field.select();
    return document.execCommand("copy");
  }
}

async function copyFrom(control, text, near) {
  const words = control.textContent;
  const done = await copyText(text, near);
  control.textContent = done ? "Copied" : "Press Ctrl+C or ⌘C";
  setTimeout(() => {
    control.textContent = words;
  }, 2000);
}

export default {
  render({ model, el }) {
    const form = () => el.closest(".kling-form");
    const bars = new Map();
    let area = null;
    let watcher = null;

    const tell = (act, row) => model.send({ kind: "act", act, id: row.id, price: row.another ?? "" });
    const barOf = (row) => {
      const look = JSON.stringify(row);
      const known = bars.get(row.id);
      if (known?.look === look) return known.bar;
      const bar = make("div", { class: "kling-acts", role: "group", "aria-label": `Run ${row.id}` });
      if (row.another) bar.append(button(`Another take - ${row.another}`, () => tell("another", row)));
      bar.append(
        button("Vary", () => {
          tell("vary", row);
          form()?.querySelector(".kling-prompt-input textarea")?.focus();
        }),
      );
      if (row.cell) {
        const copy = button("Copy cell", () => copyFrom(copy, row.cell, bar));
        bar.append(copy);
      }
      if (row.compare) bar.append(button("Compare", () => tell("compare", row)));
      for (const control of bar.children) keepKeys(control);
      bars.get(row.id)?.bar.remove();
      bars.set(row.id, { look, bar });
      return bar;
    };

    // Each card belongs to the run whose id it shows; what follows it, up to the next card, belongs to it as well.
    const arrange = () => {
      const rows = model.get("state").runs ?? [];
      const children = [...(area?.children ?? [])].filter((child) => child.classList.contains("jp-OutputArea-child"));
      const at = children.findIndex((child) => child.contains(el));
      if (at < 0) return;
      let place = 0;
      // A comparison names runs as well: the first that does is the card.
      const claimed = new Set();
      children.slice(at + 1).forEach((child, n, results) => {
        const ids = new Set([...child.querySelectorAll("bdi")].map((node) => node.textContent));
        const row = rows.find(({ id }) => ids.has(id));
        const first = row && !claimed.has(row.id);
        if (row) claimed.add(row.id);
        if (first || place === 0) place -= 1;
        if (child.style.order !== String(place)) child.style.order = String(place);
        if (!first) return;
        // On a page that was loaded anew the card below, from the controls, is the one that is true.
        const late = results[n + 1]?.querySelector(".kling-late bdi")?.closest('div[style*="max-width"]');
        const own = ":is(.jp-OutputArea-output, .jp-RenderedHTMLCommon) > div:not(.kling-stale)";
        const frame = late ?? child.querySelector(own);
        const bar = barOf(row);
        const held = frame?.children.length === 2 ? frame.lastElementChild : frame;
        if (!held || held.contains(bar)) return;
        const focused = bar.contains(document.activeElement) ? document.activeElement : null;
        held.append(bar);
        focused?.focus();
      });
      children.slice(0, at + 1).forEach((child) => {
        child.style.order = "-9999";
      });
    };

    const attach = () => {
      const found = el.closest(".jp-OutputArea");
      if (found && found !== area) {
        watcher?.disconnect();
        area = found;
        watcher = new MutationObserver(arrange);
        watcher.observe(area, { childList: true, subtree: true });
      }
      // Sliders of ipywidgets have no name of their own.
      for (const handle of form()?.querySelectorAll('[role="slider"]') ?? []) {
        const label = handle.closest(".jupyter-widgets")?.querySelector(".widget-label");
        if (label && !handle.hasAttribute("aria-label")) handle.setAttribute("aria-label", label.textContent);
      }
      arrange();
    };

    const keep = ({ target }) => {
      // The form is looked for late: it is not around this yet, and rows come and go.
      if (!target.matches(":read-write") && form()?.contains(target)) keepKeys(target);
    };
    const pressed = (event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || !form()?.contains(event.target)) return;
      event.preventDefault();
      event.stopPropagation();
      // What was typed last goes to the kernel when the field is left.
      event.target.dispatchEvent(new Event("change", { bubbles: true }));
      form().querySelector(".kling-go:enabled")?.click();
    };
    const clicked = ({ target }) => {
      const copy = target.closest?.(".kling-copy");
      const text = model.get("state").cell;
      if (text && copy && form()?.contains(copy)) copyFrom(copy, text, copy.parentElement);
    };
    document.addEventListener("focusin", keep);
    document.addEventListener("keydown", pressed, true);
    document.addEventListener("click", clicked);
    model.on("change:state", attach);
    const soon = setTimeout(attach, 50);
    return () => {
      clearTimeout(soon);
      watcher?.disconnect();
      model.off("change:state", attach);
      document.removeEventListener("focusin", keep);
      document.removeEventListener("keydown", pressed, true);
      document.removeEventListener("click", clicked);
    };
  },
};
