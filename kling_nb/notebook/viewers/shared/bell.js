// Says in the page, and where allowed on the desktop, that a run has ended.
//
// Invariants: foreign words go in as text, never as markup; nothing is asked of the network; permission is only
// asked for on a click; the word comes from the model and not by its view, which is gone by then.

// Long enough to be found by somebody who was away for a moment.
const SHOWN_MS = 60000;

function corner() {
  let held = document.querySelector(".kling-toasts");
  if (held === null) {
    held = document.createElement("div");
    held.className = "kling-toasts";
    held.setAttribute("role", "status");
    Object.assign(held.style, {
      position: "fixed", right: "16px", bottom: "40px", zIndex: 10000, maxWidth: "min(360px, 90vw)",
      display: "flex", flexDirection: "column", gap: "8px",
    });
    document.body.append(held);
  }
  return held;
}

function button(words) {
  const made = document.createElement("button");
  made.textContent = words;
  Object.assign(made.style, {
    padding: "2px 10px", borderRadius: "4px", font: "inherit", cursor: "pointer",
    color: "var(--jp-ui-font-color1, #111)", background: "var(--jp-layout-color2, #eee)",
    border: "1px solid var(--jp-border-color1, #999)",
  });
  return made;
}

function toast(title, body) {
  const box = document.createElement("div");
  box.className = "kling-toast";
  Object.assign(box.style, {
    padding: "10px 12px", borderRadius: "8px", font: "13px/1.45 system-ui, sans-serif",
    color: "var(--jp-ui-font-color1, #111)", background: "var(--jp-layout-color1, #fff)",
    border: "1px solid var(--jp-border-color1, #999)", boxShadow: "0 2px 10px rgba(0, 0, 0, 0.3)",
  });
  const head = document.createElement("b");
  head.textContent = title;
  const words = document.createElement("div");
  words.textContent = body;
  const close = button("Close");
  close.style.marginTop = "6px";
  close.addEventListener("click", () => box.remove());
  box.append(head, words, close);
  corner().append(box);
  setTimeout(() => box.remove(), SHOWN_MS);
}

function may() {
  return "Notification" in window ? Notification.permission : "denied";
}

export default {
  initialize({ model }) {
    model.on("msg:custom", ({ title, body }) => {
      toast(String(title), String(body));
      if (may() === "granted") new Notification(String(title), { body: String(body) });
    });
  },
  render({ el }) {
    if (may() !== "default") return;
    const ask = button("Also notify on the desktop");
    ask.addEventListener("click", async () => {
      await Notification.requestPermission();
      ask.remove();
    });
    el.append(ask);
  },
};
