// The bar below the pictures of a live view: play, steps, position, range, speed; the same by keyboard; its end.
//
// Invariants: everything a key does, a control does too; keys of the notebook itself are kept out while the
// view has the focus, and keys that belong to a field stay with it; each control has a name.
//
// Shared by joining files (see frontend.py): it uses page.js and lockstep.js and exports nothing.

const KEYS = [
  ["Space", "play or pause"],
  ["← →", "one frame back or on"],
  ["Shift ← →", "one second back or on"],
  ["Home End", "first or last frame"],
  ["[ ]", "loop from here, loop to here"],
  ["\\", "loop over everything"],
  ["L", "loop on or off"],
  ["− +", "slower or faster"],
];

class Controls {
  // `step` is a LockStep; `more` are further keys as { key: [shown, words, act] }.
  constructor(step, more = {}) {
    this.step = step;
    this.acts = {
      " ": () => step.toggle(),
      ArrowLeft: (event) => step.step(event.shiftKey ? -Math.round(step.fps) : -1),
      ArrowRight: (event) => step.step(event.shiftKey ? Math.round(step.fps) : 1),
      Home: () => step.step(-step.frames),
      End: () => step.step(step.frames),
      "[": () => step.setRange(step.frame, Math.max(step.frame, step.to)),
      "]": () => step.setRange(Math.min(step.from, step.frame), step.frame),
      "\\": () => this.loopAll(),
      l: () => step.setLoop(!step.loop),
      "-": () => this.faster(-1),
      "+": () => this.faster(1),
      "=": () => this.faster(1),
    };
    for (const [key, [, , act]] of Object.entries(more)) this.acts[key] = act;
    this.node = make("div", { class: "kling-controls" }, this.position(), this.buttons(), this.help(more));
    this.show();
  }

  position() {
    const { step } = this;
    this.slider = make("input", {
      type: "range",
      min: 0,
      step: 1,
      "aria-label": "Position",
      on: { input: () => step.go(Number(this.slider.value)) },
    });
    this.range = make("div", { class: "kling-range", "aria-hidden": "true" });
    this.time = make("span", { class: "kling-time" });
    const track = make("div", { class: "kling-track" }, this.slider, this.range);
    return make("div", { class: "kling-position" }, track, this.time);
  }

  buttons() {
    const { step } = this;
    this.playing = button("Play", () => step.toggle(), { key: "Space", class: "kling-play" });
    this.loop = button("Loop", () => step.setLoop(!step.loop), { name: "Loop the range", key: "L" });
    this.speed = choice(
      "Speed",
      RATES.map((rate) => [String(rate), `${rate}×`]),
      "1",
      (value) => step.setRate(Number(value)),
    );
    return make(
      "div",
      { class: "kling-bar", role: "group", "aria-label": "Controls" },
      this.playing,
      button("◂ frame", () => step.step(-1), { name: "One frame back", key: "ArrowLeft" }),
      button("frame ▸", () => step.step(1), { name: "One frame on", key: "ArrowRight" }),
      this.loop,
      button("A", this.acts["["], { name: "A: loop from here", key: "[" }),
      button("B", this.acts["]"], { name: "B: loop to here", key: "]" }),
      button("whole", () => this.loopAll(), { name: "whole: loop over everything", key: "\\" }),
      this.speed,
    );
  }

  help(more) {
    const shown = [...KEYS, ...Object.values(more)].filter(([keys]) => keys !== null);
    const rows = shown.map(([keys, words]) => make("div", {}, make("kbd", { text: keys }), ` ${words}`));
    return make("details", {}, make("summary", { text: "Keys" }), make("div", { class: "kling-keys" }, ...rows));
  }

  loopAll() {
    this.step.whole();
    this.step.setLoop(true);
  }

  faster(places) {
    const at = RATES.indexOf(this.step.rate) + places;
    if (at >= 0 && at < RATES.length) this.step.setRate(RATES[at]);
  }

  // Brings the bar up to date.
  show() {
    const { step } = this;
    const last = step.frames - 1;
    const seconds = step.frame / step.fps;
    const words = `${secondsText(seconds)} of ${secondsText(step.frames / step.fps)}, frame ${step.frame + 1} of ${step.frames}`;
    setText(this.time, words);
    this.slider.max = last;
    this.slider.value = step.frame;
    this.slider.setAttribute("aria-valuetext", words);
    this.range.style.left = `${(100 * step.from) / Math.max(1, step.frames)}%`;
    this.range.style.width = `${(100 * (step.to + 1 - step.from)) / Math.max(1, step.frames)}%`;
    this.range.classList.toggle("kling-off", !step.loop);
    setText(this.playing, step.wanted ? "Pause" : "Play");
    this.playing.setAttribute("aria-label", step.wanted ? "Pause" : "Play");
    this.loop.setAttribute("aria-pressed", String(step.loop));
    this.speed.querySelector("select").value = String(step.rate);
  }

  // Hears keys for everything inside `root`.
  listen(root) {
    root.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.ctrlKey || event.altKey || event.metaKey) return;
      const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
      const act = this.acts[key];
      if (!act || belongsTo(event.target, key, this.slider)) return;
      event.preventDefault();
      act(event);
    });
  }
}

// A live view of clips in lock step. It ends when somebody closes it, or with its cell.
class SteppedView {
  constructor(model, root) {
    this.model = model;
    this.root = root;
    this.state = model.get("state");
    root.tabIndex = 0;
    root.setAttribute("role", "group");
    keepAllKeys(root);
  }

  dismiss() {
    this.close();
    this.root.replaceChildren();
    this.root.hidden = true;
    this.model.send({ kind: "close" });
  }

  close() {
    this.closed = true;
    this.step?.close();
    this.clips.close();
  }
}

// Whether a key means something to the element itself.
function belongsTo(target, key, slider) {
  const pressed = key === " " && target.closest("button, summary, a");
  const field = target.closest("select, input[type=range], input[type=checkbox], input[type=radio]");
  return Boolean(pressed || (field && field !== slider && (key === " " || key.length > 1)));
}
