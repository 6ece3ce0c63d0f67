// Says in the page, and where allowed on the desktop, that a run has ended.
//
// Invariants: foreign words go in as text, never as markup; nothing is asked of the network; permission is only
// asked for on a click; the word is told by the model and not by its view, which is gone by then.

const SHOWN_MS = 12000;

function toast(title, body) {
  const box = document.createElement("div");
  box.setAttribute("role", "status");
  box.className = "kling-toast";
  Object.assign(box.style, {
    position: "fixed", right: "16px", bottom: "40px", zIndex: 10000, maxWidth: "min(360px, 90vw)",
    padding: "10px 12px", borderRadius: "8px", font: "13px/1.45 system-ui, sans-serif",
    color: "var(--jp-ui-font-color1, #111)", background: "var(--jp-layout-color1, #fff)",
    border: "1px solid var(--jp-border-color1, #999)", boxShadow: "0 2px 10px rgba(0, 0, 0, 0.3)",
  });
  const head = document.createElement("b");
  head.textContent = title;
  const words = document.createElement("div");
  words.textContent = body;
  const close = document.createElement("button");
  close.textContent = "Close";
  close.style.marginTop = "6px";
  close.addEventListener("click", () => box.remove());
  box.append(head, words, close);
  document.body.append(box);
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
    const ask = document.createElement("button");
    ask.textContent = "Also notify on the desktop";
    ask.addEventListener("click", async () => {
      await Notification.requestPermission();
      ask.remove();
    });
    el.append(ask);
  },
};
