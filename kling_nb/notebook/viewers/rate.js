// A blind ballot: two clips side by side, four answers, and where asked three axes; all of it by key.
//
// Invariants: the page knows a clip by a made-up mark alone; a vote is sent once, and the next pair comes only
// when it is kept; both clips start together and go round together; there is no sound until somebody asks.
//
// Joined behind page.js and clips.js (see frontend.py).

const ANSWERS = [
  ["left", "1", "Left is better"],
  ["right", "2", "Right is better"],
  ["good", "3", "Both good"],
  ["bad", "4", "Both bad"],
];
const SIDES = ["left", "right"];
const LIKED = [
  ["", "No answer"],
  ["left", "Left"],
  ["same", "Same"],
  ["right", "Right"],
];
const AXIS_KEYS = { visual: "v", motion: "m", text: "t" };

class Ballot {
  constructor(model, root) {
    this.model = model;
    this.root = root;
    this.still = window.matchMedia("(prefers-reduced-motion: reduce)");
    this.turn = 0;
    this.pair = null;
    this.here = false;
    this.listener = (message) => message.kind === "showing" && this.take(message);
    model.on("msg:custom", this.listener);
    this.clips = new Clips(model, (id, words) => this.say(id, words));
    this.build(model.get("state").axes);
    model.send({ kind: "hello" });
  }

  build(axes) {
    const { root } = this;
    root.className += " kling-live kling-rate";
    root.tabIndex = 0;
    root.setAttribute("role", "group");
    root.setAttribute("aria-label", "Blind rating of two clips");
    this.status = make("div", { class: "kling-status", role: "status" });
    const close = button("Close", () => this.model.send({ kind: "close" }), { name: "Close the ballot" });
    this.prompt = promptBox("", "Prompt of both clips");
    this.boxes = {};
    this.messages = {};
    const stage = SIDES.map((side) => {
      this.boxes[side] = make("div", { class: "kling-box" });
      this.messages[side] = make("div", { class: "kling-message" });
      const head = make("div", { class: "kling-side", text: side === "left" ? "Left" : "Right" });
      return make("div", { class: "kling-half" }, head, this.boxes[side], this.messages[side]);
    });
    this.playing = keyed("Pause", " ", "Space", () => this.toggle());
    this.hearing = keyed("Sound: none", "h", "H", () => this.hear());
    this.answers = ANSWERS.map(([choice, key, words]) => keyed(words, key, key, () => this.vote(choice)));
    this.skipping = keyed("Skip", "n", "N", () => this.skip());
    this.undoing = keyed("Undo", "u", "U", () => this.undo());
    this.axes = axes.map(({ axis, words }) => new AxisRow(axis, words));
    this.note = make("input", { type: "text", maxlength: 500 });
    this.body = make(
      "div",
      {},
      this.prompt,
      make("div", { class: "kling-stage" }, ...stage),
      make("div", { class: "kling-row" }, this.playing, this.hearing),
      ...this.axes.map((row) => row.node),
      make("div", { class: "kling-row kling-answers" }, ...this.answers),
    );
    const note = make("label", { class: "kling-note" }, make("span", { text: "Note" }), this.note);
    this.below = make("div", { class: "kling-row" }, this.skipping, this.undoing, note);
    const axisKeys = this.axes.map((row) => ` ${row.key.toUpperCase()}: ${row.words.toLowerCase()}.`).join("");
    const hint = `Keys, after a click or Tab into this frame: 1 left, 2 right, 3 both good, 4 both bad (or the arrows left and right), Space plays and stops, N skips, U takes the last vote back.${axisKeys}`;
    const head = make("div", { class: "kling-head" }, this.status, close);
    root.replaceChildren(head, this.body, this.below, make("div", { class: "kling-hint", text: hint }));
    keepAllKeys(root);
    root.addEventListener("keydown", (event) => this.key(event));
    root.addEventListener("pointerdown", (event) => {
      if (!event.target.closest("button, input, label")) root.focus({ preventScroll: true });
    });
  }

  // -- what is up ----------------------------------------------------------------
  take(message) {
    const { done, whole, why } = message;
    const same = message.pair && this.pair && message.pair.mark === this.pair.mark;
    this.wait(false);
    clearTimeout(this.late);
    this.undoing.disabled = !message.undo;
    const over = message.pair === null;
    const all = whole === 1 ? "The only pair is rated" : `All ${whole} pairs are rated`;
    const progress = over ? all : `${done} of ${whole} pairs rated`;
    this.status.textContent = why ? `${why} ${progress}.` : `${progress}.`;
    this.body.hidden = over;
    this.skipping.disabled = over;
    if (same) return;
    this.drop();
    this.pair = message.pair;
    this.here = over;
    this.mark();
    if (over) {
      if (!this.root.contains(document.activeElement)) return;
      this.root.focus({ preventScroll: true });
      return;
    }
    this.prompt.textContent = this.pair.prompt;
    this.hearing.hidden = !this.pair.sound;
    for (const row of this.axes) row.set("");
    this.note.value = "";
    this.load();
  }

  async load() {
    const turn = ++this.turn;
    this.videos = {};
    for (const side of SIDES) {
      this.boxes[side].style.aspectRatio = this.pair.shape.replace(":", " / ");
      this.messages[side].textContent = "Loading";
    }
    await Promise.all(
      SIDES.map(async (side) => {
        try {
          const url = await this.clips.get(this.pair[side]);
          if (turn !== this.turn) return;
          const video = make("video", { src: url, playsinline: true, tabindex: -1, "aria-label": `${side} clip` });
          video.muted = true;
          this.boxes[side].replaceChildren(video);
          this.messages[side].textContent = "";
          await new Promise((done) => {
            for (const event of ["canplay", "error"]) video.addEventListener(event, done, { once: true });
          });
          if (turn !== this.turn) return;
          if (video.error) throw new Error("The browser does not play this clip");
          video.addEventListener("ended", () => this.round());
          this.videos[side] = video;
        } catch (error) {
          if (turn === this.turn) this.messages[side].textContent = error.message;
        }
      }),
    );
    if (turn !== this.turn) return;
    this.here = SIDES.every((side) => this.videos[side]);
    if (!this.here) this.status.append(" Without both clips there is no vote: skip this pair.");
    this.mark();
    this.sound = "none";
    this.wanted = !this.still.matches;
    this.go();
  }

  say(id, words) {
    for (const side of SIDES) if (this.pair?.[side] === id) this.messages[side].textContent = words;
  }

  // Forgets the pair that was up.
  drop() {
    this.turn += 1;
    for (const side of SIDES) {
      // Also one that was not ready yet: its address is about to be given back.
      for (const video of this.boxes[side].querySelectorAll("video")) {
        video.pause();
        video.removeAttribute("src");
        video.load();
      }
      this.boxes[side].replaceChildren();
      this.messages[side].textContent = "";
      if (this.pair) this.clips.forget(this.pair[side]);
    }
    this.videos = {};
  }

  // -- playing ---------------------------------------------------------------------
  go() {
    const label = this.wanted ? "Pause" : "Play";
    this.playing.klingWords.textContent = label;
    for (const side of SIDES) {
      const video = this.videos[side];
      if (!video) continue;
      video.muted = this.sound !== side;
      if (!this.wanted) video.pause();
      else if (!video.ended) video.play().catch((error) => this.refused(error, side));
    }
    this.hearing.klingWords.textContent = `Sound: ${this.sound}`;
  }

  refused(error, side) {
    if (error.name !== "AbortError") this.messages[side].textContent = "The browser does not play this clip";
  }

  // When the longer one is over, both begin again.
  round() {
    const videos = Object.values(this.videos);
    if (!videos.every((video) => video.ended)) return;
    for (const video of videos) video.currentTime = 0;
    if (this.wanted) for (const video of videos) video.play().catch(() => {});
  }

  toggle() {
    this.wanted = !this.wanted;
    if (this.wanted && Object.values(this.videos).every((video) => video.ended)) this.round();
    this.go();
  }

  hear() {
    this.sound = { none: "left", left: "right", right: "none" }[this.sound ?? "none"];
    this.go();
  }

  // -- voting ------------------------------------------------------------------------
  send(message) {
    if (this.busy) return;
    this.wait(true);
    const words = " Waiting for the kernel: it is busy with another cell, or has ended.";
    this.late = setTimeout(() => this.status.append(words), 4000);
    this.model.send(message);
  }

  wait(on) {
    this.busy = on;
    this.mark();
  }

  mark() {
    this.root.setAttribute("aria-busy", String(this.busy || !this.here));
  }

  // A vote on a pair that nobody has seen would be none: it counts when both clips are here.
  vote(choice) {
    if (!this.pair || !this.here) return;
    const axes = Object.fromEntries(this.axes.filter((row) => row.value).map((row) => [row.axis, row.value]));
    this.send({ kind: "vote", mark: this.pair.mark, choice, axes, note: this.note.value });
  }

  skip() {
    if (this.pair) this.send({ kind: "skip", mark: this.pair.mark });
  }

  undo() {
    if (!this.undoing.disabled) this.send({ kind: "undo" });
  }

  key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
    const { target } = event;
    const key = event.key.toLowerCase();
    if (target.matches("input[type=text]")) return;
    // A radio button moves by arrow and is set by space; a button is pressed by space.
    if (target.matches("input") && (key.startsWith("arrow") || key === " ")) return;
    if (target.matches("button") && key === " ") return;
    const answer = { arrowleft: "left", arrowright: "right" }[key] ?? ANSWERS.find(([, its]) => its === key)?.[0];
    const row = this.axes.find((each) => each.key === key);
    if (answer) this.vote(answer);
    else if (row) row.next();
    else if (key === " ") this.toggle();
    else if (key === "h" && !this.hearing.hidden) this.hear();
    else if (key === "n") this.skip();
    else if (key === "u") this.undo();
    else return;
    event.preventDefault();
  }

  close() {
    clearTimeout(this.late);
    this.drop();
    this.model.off("msg:custom", this.listener);
    this.clips.close();
  }
}

let rows = 0;

// One axis: left, same, right, or no answer.
class AxisRow {
  constructor(axis, words) {
    this.axis = axis;
    this.words = words;
    this.key = AXIS_KEYS[axis];
    this.value = "";
    const name = `kling-axis-${(rows += 1)}`;
    this.inputs = LIKED.map(([value, label]) => {
      const input = make("input", { type: "radio", name, value, on: { change: () => this.set(value) } });
      return { value, input, node: make("label", {}, input, make("span", { text: label })) };
    });
    const legend = make("legend", { text: `${words} (${this.key.toUpperCase()})` });
    this.node = make("fieldset", { class: "kling-axis" }, legend, ...this.inputs.map(({ node }) => node));
    this.set("");
  }

  set(value) {
    this.value = value;
    for (const each of this.inputs) each.input.checked = each.value === value;
  }

  next() {
    const at = LIKED.findIndex(([value]) => value === this.value);
    this.set(LIKED[(at + 1) % LIKED.length][0]);
  }
}

// A button that shows its key.
function keyed(words, key, shown, act) {
  const text = make("span", { text: words });
  const node = make(
    "button",
    { type: "button", "aria-keyshortcuts": key === " " ? "Space" : key, on: { click: act } },
    make("kbd", { text: shown }),
    " ",
    text,
  );
  node.klingWords = text;
  return node;
}

export default {
  render({ model, el }) {
    const ballot = new Ballot(model, el);
    return () => ballot.close();
  },
};
