// Clips side by side, in lock step, with sound one at a time; two of them also by a wipe or one over the other.
//
// Invariants: no <video> is ever moved in the page, which would stop it (the three looks are classes on the
// stage); a clip that is not here says so in its place, and the others play; nothing plays by itself; only
// one clip has sound until somebody asks for more.
//
// Joined behind page.js, clips.js, lockstep.js and controls.js (see frontend.py).

const LOOKS = [
  ["beside", "Side by side"],
  ["wipe", "Wipe"],
  ["overlay", "Overlay"],
];

class Compare extends SteppedView {
  constructor(model, root, uncover) {
    super(model, root);
    this.uncover = uncover;
    this.look = "beside";
    this.slots = this.state.clips.map((clip, number) => new Slot(clip, number, this));
    this.clips = new Clips(model, (id, words) => this.slots.find((slot) => slot.clip.id === id)?.say(words));
    this.build();
    this.load();
  }

  build() {
    const { state, root } = this;
    root.className += " kling-live kling-compare";
    root.setAttribute("aria-label", `Comparison of ${state.clips.length} clips`);
    this.stage = make("div", { class: "kling-stage" }, ...this.slots.map((slot) => slot.node));
    this.below = make("div", {});
    this.status = make("div", { class: "kling-status", role: "status" });
    this.closing = button("Close", () => this.dismiss(), { name: "Close the comparison" });
    const prompt = state.prompt === null ? null : promptBox(state.prompt, "Prompt of all clips");
    const alike = make("div", { class: "kling-facts", text: state.facts.join(" · ") });
    const head = make("div", { class: "kling-head" }, make("div", {}, prompt, alike), this.closing);
    root.replaceChildren(head, this.stage, this.below, this.status);
    root.addEventListener("pointerdown", (event) => {
      if (!event.target.closest("button, select, input, summary, label")) {
        root.focus({ preventScroll: true });
      }
    });
  }

  async load() {
    await Promise.all(this.slots.map((slot) => slot.load(this.clips)));
    if (this.closed) return;
    const here = this.slots.filter((slot) => slot.video);
    if (!here.length) {
      this.status.textContent = "There is no clip to play.";
      return;
    }
    const first = here.find((slot) => slot.clip.sound);
    if (first) first.hear(true);
    this.chosen = first ?? here[0];
    this.waiting = "";
    const clips = here.map(({ video, clip }) => ({ video, fps: clip.fps, frames: clip.frames }));
    this.step = new LockStep(clips, () => this.changed());
    if (this.state.end !== this.step.end) this.step.setEnd(this.state.end);
    this.controls = new Controls(this.step, this.keys());
    this.controls.listen(this.root);
    this.below.append(this.extras(here), this.controls.node);
    this.wide(here);
    this.changed();
  }

  keys() {
    const more = {
      m: ["M", "sound of the chosen clip on or off", () => this.sound()],
      s: ["S", "hear only the chosen clip", () => this.solo()],
    };
    this.slots.slice(0, 9).forEach((slot, number) => {
      const words = "choose a clip";
      const shown = number === 0 ? [`1 … ${Math.min(9, this.slots.length)}`, words] : [null, null];
      more[String(number + 1)] = [...shown, () => this.choose(slot)];
    });
    return more;
  }

  // What a comparison has beyond a player: where it ends, how it looks.
  extras(here) {
    const bar = make("div", { class: "kling-bar", role: "group", "aria-label": "Comparison" });
    const lengths = new Set(this.step.clips.map((clip) => this.step.length(clip).toFixed(2)));
    if (lengths.size > 1) {
      const ends = [
        ["longest", "with the longest clip"],
        ["shortest", "with the shortest clip"],
      ];
      bar.append(choice("Ends", ends, this.step.end, (value) => this.step.setEnd(value)));
    }
    if (here.length === 2 && this.slots.length === 2) {
      bar.append(choice("Look", LOOKS, this.look, (value) => this.show(value)));
      bar.append(this.wipe(), this.overlay());
    }
    return bar;
  }

  wipe() {
    const input = make("input", { type: "range", min: 0, max: 100, value: 50, "aria-label": "Place of the wipe" });
    const set = () => this.stage.style.setProperty("--kling-wipe", `${input.value}%`);
    input.addEventListener("input", set);
    set();
    const follow = (event) => {
      const box = this.slots[0].box.getBoundingClientRect();
      input.value = Math.round((100 * (event.clientX - box.left)) / box.width);
      set();
    };
    this.stage.addEventListener("pointerdown", (event) => {
      if (this.look !== "wipe" || !event.target.closest(".kling-box")) return;
      this.stage.setPointerCapture(event.pointerId);
      follow(event);
    });
    this.stage.addEventListener("pointermove", (event) => {
      if (this.stage.hasPointerCapture(event.pointerId)) follow(event);
    });
    this.wiping = make("label", { hidden: true }, make("span", { text: "1 | 2" }), input);
    return this.wiping;
  }

  overlay() {
    const input = make("input", { type: "range", min: 0, max: 100, value: 50, "aria-label": "Opacity of clip 2" });
    const set = () => this.stage.style.setProperty("--kling-opacity", input.value / 100);
    input.addEventListener("input", set);
    set();
    const difference = make("input", {
      type: "checkbox",
      on: {
        change: () => {
          this.stage.classList.toggle("kling-difference", difference.checked);
          input.value = difference.checked ? 100 : 50;
          set();
        },
      },
    });
    const opacity = make("label", {}, make("span", { text: "Clip 2 over clip 1" }), input);
    this.laying = make("span", { hidden: true, class: "kling-bar" }, opacity, make("label", {}, difference, "Difference"));
    return this.laying;
  }

  show(look) {
    for (const [name] of LOOKS) this.stage.classList.toggle(`kling-${name}`, name === look);
    this.look = look;
    this.wiping.hidden = look !== "wipe";
    this.laying.hidden = look !== "overlay";
  }

  // Clips that lie over each other share one box, which has the shape of the first.
  wide(here) {
    const { width, height } = here[0].clip;
    if (width && height) this.stage.style.setProperty("--kling-shape", `${width} / ${height}`);
  }

  choose(chosen) {
    this.chosen = chosen;
    for (const slot of this.slots) slot.node.classList.toggle("kling-chosen", slot === chosen);
    const sound = chosen.hears ? `sound ${chosen.video.muted ? "off" : "on"}` : "silent";
    setText(this.status, `Clip ${chosen.number + 1}, ${chosen.name}: ${sound}`);
  }

  sound() {
    if (this.chosen.hears) this.chosen.hear(this.chosen.video.muted);
    this.choose(this.chosen);
    this.changed();
  }

  solo() {
    for (const slot of this.slots) slot.hear(slot === this.chosen);
    this.choose(this.chosen);
    this.changed();
  }

  changed() {
    if (!this.controls) return;
    this.controls.show();
    for (const slot of this.slots) slot.show();
    if (this.waiting !== this.step.words) setText(this.status, this.step.words);
    this.waiting = this.step.words;
  }

  dismiss() {
    this.uncover();
    super.dismiss();
  }
}

class Slot {
  constructor(clip, number, view) {
    this.clip = clip;
    this.number = number;
    this.view = view;
    this.video = null;
    const name = clip.title || clip.name || clip.id;
    this.name = name;
    this.words = make("div", { class: "kling-place", text: "Loading" });
    this.box = make("div", { class: "kling-box" }, this.words);
    if (clip.width && clip.height && !clip.why) this.box.style.setProperty("--kling-own", `${clip.width} / ${clip.height}`);
    this.muting = button("Sound", () => this.toggle(), { name: `Sound of clip ${number + 1}`, hidden: true });
    const title = make(
      "div",
      { class: "kling-title" },
      make("span", { class: "kling-number", text: number + 1 }),
      make("b", { text: clip.title, dir: "auto" }),
      make("code", { text: [clip.name, clip.id].filter(Boolean).join(" · ") }),
      this.muting,
    );
    const facts = make("div", { class: "kling-facts", text: clip.facts.join(" · ") });
    const prompt = clip.prompt === null ? null : promptBox(clip.prompt, `Prompt of clip ${number + 1}`);
    this.node = make(
      "div",
      { class: "kling-slot", role: "group", "aria-label": `Clip ${number + 1}, ${name}` },
      this.box,
      make("div", { class: "kling-caption" }, title, facts, prompt),
    );
  }

  get hears() {
    return Boolean(this.video && this.clip.sound);
  }

  say(words) {
    if (words) this.words.textContent = words;
  }

  fail(words) {
    this.words.textContent = words;
    this.words.classList.add("kling-missing");
  }

  async load(clips) {
    if (this.clip.why) {
      this.fail(this.clip.why);
      return;
    }
    try {
      await this.take(await clips.get(this.clip.id));
    } catch (error) {
      this.fail(error.message);
    }
  }

  async take(url) {
    const video = await openVideo(url, this.clip, this.box);
    this.video = video;
    this.words.hidden = true;
    this.box.addEventListener("click", () => this.view.look === "wipe" || this.view.step?.toggle());
    this.muting.hidden = !this.clip.sound;
  }

  toggle() {
    this.hear(this.video.muted);
    this.view.choose(this);
    this.view.changed();
  }

  hear(on) {
    if (this.hears) this.video.muted = !on;
  }

  show() {
    if (this.hears) this.muting.setAttribute("aria-pressed", String(!this.video.muted));
  }
}

// The contact sheet stands in the output above: while the clips themselves are here, nobody needs both.
function coverSheet(el) {
  const sheet = el.closest(".jp-OutputArea-child")?.previousElementSibling;
  if (!sheet) return () => {};
  sheet.style.display = "none";
  return () => {
    sheet.style.display = "";
  };
}

export default {
  render({ model, el }) {
    const root = document.createElement("div");
    el.append(root);
    let uncover = () => {};
    // The view is not in its output yet.
    const late = requestAnimationFrame(() => {
      uncover = coverSheet(el);
    });
    const view = new Compare(model, root, () => uncover());
    return () => {
      cancelAnimationFrame(late);
      uncover();
      view.close();
    };
  },
};
