// One clip with frame steps, loop, speed and keyboard, and the shots of a storyboard on its timeline.
//
// Invariants: nothing plays by itself; a mark is a button that goes to the first frame of its shot; the words
// of a shot are text; a clip that cannot be played says why in its place.
//
// Joined behind page.js, clips.js, lockstep.js and controls.js (see frontend.py).

class Player extends SteppedView {
  constructor(model, root) {
    super(model, root);
    this.clips = new Clips(model, (_id, words) => words && setText(this.words, words));
    this.build();
    this.load().catch((error) => this.fail(error.message));
  }

  build() {
    const { clip } = this.state;
    const { root } = this;
    const name = clip.name || clip.id;
    root.className += " kling-live kling-player";
    root.setAttribute("aria-label", `Player, ${name}`);
    this.words = make("div", { class: "kling-place", text: "Loading" });
    this.box = make("div", { class: "kling-box" }, this.words);
    if (clip.width && clip.height) this.box.style.setProperty("--kling-own", `${clip.width} / ${clip.height}`);
    this.muting = button("Sound", () => this.sound(), { key: "M", hidden: true });
    const title = make(
      "div",
      { class: "kling-title" },
      make("b", { text: name, dir: "auto" }),
      make("span", { class: "kling-facts", text: clip.facts.join(" · ") }),
    );
    const closing = button("Close", () => this.dismiss(), { name: "Close the player" });
    this.marks = this.state.marks.length ? make("div", { class: "kling-marks" }) : null;
    this.below = make("div", {});
    this.status = make("div", { class: "kling-status", role: "status" });
    const head = make("div", { class: "kling-head" }, title, make("span", { class: "kling-bar" }, this.muting, closing));
    root.replaceChildren(head, this.box, ...(this.marks ? [this.marks] : []), this.below, this.status);
    root.addEventListener("pointerdown", (event) => {
      if (!event.target.closest("button, select, input, summary, label")) root.focus({ preventScroll: true });
    });
  }

  async load() {
    const { clip } = this.state;
    if (clip.why) throw new Error(clip.why);
    const url = await this.clips.get(clip.id);
    this.video = await openVideo(url, clip, this.box);
    if (this.closed) return;
    this.words.hidden = true;
    this.video.muted = !clip.sound;
    this.muting.hidden = !clip.sound;
    this.step = new LockStep([{ video: this.video, fps: clip.fps, frames: clip.frames }], () => this.changed());
    this.step.loop = false;
    const more = clip.sound ? { m: ["M", "sound on or off", () => this.sound()] } : {};
    this.shots(more);
    this.controls = new Controls(this.step, more);
    this.controls.listen(this.root);
    this.below.append(this.controls.node);
    this.box.addEventListener("click", () => this.step.toggle());
    this.changed();
  }

  // A mark for each shot, as wide as the shot is long; it goes to the shot's first frame.
  shots(more) {
    const { marks } = this.state;
    if (!marks.length) return;
    const { frames } = this.step;
    this.starts = marks.map((mark) => Math.round(mark.share * frames));
    this.buttons = marks.map((mark, place) => {
      const start = this.starts[place];
      const end = this.starts[place + 1] ?? frames;
      const seconds = secondsText(start / this.step.fps);
      const name = `Shot ${mark.number}, from ${seconds}: ${mark.words}`;
      const node = button("", () => this.step.go(start), { name });
      node.append(
        make("b", { text: mark.number }),
        make("span", { text: ` ${secondsText((end - start) / this.step.fps)}` }),
      );
      node.style.flexGrow = String(end - start);
      return node;
    });
    this.marks.replaceChildren(...this.buttons);
    this.message = make("div", { class: "kling-shot", dir: "auto" });
    this.below.append(this.message);
    more[","] = [", .", "shot before, next shot", () => this.shot(-1)];
    more["."] = [null, null, () => this.shot(1)];
  }

  // The shot that the position is in.
  get now() {
    return this.starts.findLastIndex((start) => start <= this.step.frame);
  }

  shot(places) {
    const at = Math.min(Math.max(0, this.now + places), this.starts.length - 1);
    this.step.go(this.starts[at]);
  }

  sound() {
    this.video.muted = !this.video.muted;
    this.changed();
  }

  changed() {
    if (!this.controls) return;
    this.controls.show();
    this.muting.setAttribute("aria-pressed", String(!this.video.muted));
    setText(this.status, this.step.words);
    if (!this.starts) return;
    const now = this.now;
    this.buttons.forEach((node, place) => node.setAttribute("aria-pressed", String(place === now)));
    setText(this.message, `Shot ${this.state.marks[now].number}: ${this.state.marks[now].words}`);
  }

  fail(words) {
    this.words.hidden = false;
    setText(this.words, words);
    this.words.classList.add("kling-missing");
  }
}

export default {
  render({ model, el }) {
    const root = document.createElement("div");
    el.append(root);
    const view = new Player(model, root);
    return () => view.close();
  },
};
